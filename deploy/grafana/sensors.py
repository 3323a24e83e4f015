"""Readings in, forecasts out."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import WHO, bars, board, chosen, lines, number, rate


def sensors() -> Dashboard:
    one = f'{WHO},stream=~"$sensor"'
    return board(
        "streamer-sensors",
        "Streamer: sensors",
        "Readings in, forecasts out: how good they are, and whether any are late",
        [
            (
                "At a glance",
                [
                    number("Sensors", "none", "That are known.", f"sum(streamer_sensors{{{WHO}}})"),
                    number(
                        "Readings",
                        "ops",
                        "Taken a second.",
                        f"sum(rate(streamer_readings_total{{{WHO}}}[$__rate_interval]))",
                    ),
                    number(
                        "Oldest waiting reading",
                        "s",
                        "Taken, on the disk, and not yet run.",
                        f"max(streamer_oldest_reading_seconds{{{WHO}}})",
                        (5, 30),
                    ),
                    number(
                        "Refused",
                        "ops",
                        "Readings, lines and bodies a second.",
                        f"sum(rate(streamer_refused_readings_total{{{WHO}}}[$__rate_interval])) or vector(0)",
                        (0.01, 1),
                    ),
                    number(
                        "Broker",
                        "none",
                        "1: connected (0 also where none is set).",
                        f"min(streamer_mqtt_connected{{{WHO}}})",
                    ),
                    number(
                        "Not on the page",
                        "none",
                        "Sensors for which max_sensor_series has no room.",
                        f"sum(streamer_sensors_left_out{{{WHO}}})",
                        (1, 100),
                    ),
                ],
            ),
            (
                "One sensor",
                [
                    lines(
                        "Reading and forecast, one step ahead",
                        "short",
                        "The last reading, and the band that was expected for the next one.",
                        (f"streamer_forecast_reading{{{one}}}", "{{stream}}"),
                        (f'streamer_forecast{{{one},ahead="1"}}', "{{stream}} {{level}}"),
                    ),
                    lines(
                        "How probable the last reading was",
                        "percentunit",
                        "Of a reading at least so far from what was expected: near 0 is an anomaly.",
                        (f"streamer_forecast_anomaly{{{one}}}", "{{stream}}"),
                        most=1,
                    ),
                    lines(
                        "Drift",
                        "none",
                        "Recent errors divided by usual ones: 1 is as usual.",
                        (f"streamer_forecast_drift{{{one}}}", "{{stream}}"),
                        limits=(2, 4),
                    ),
                    lines(
                        "Error against the better naive forecast",
                        "none",
                        "MASE of the last 1000 forecasts: below 1 the model is worth it.",
                        (f"streamer_forecast_mase{{{one}}}", "{{stream}} {{ahead}}"),
                        limits=(0.9, 1),
                    ),
                    lines(
                        "Absolute error",
                        "short",
                        "Mean of the last 1000 forecasts, in the sensor's unit.",
                        (f"streamer_forecast_mae{{{one}}}", "{{stream}} {{ahead}}"),
                    ),
                    lines(
                        "Readings inside the band",
                        "percentunit",
                        "Of the last 1000: as many as the outer quantiles promise, 90 of 100 between 0.05 and 0.95.",
                        (f"streamer_forecast_coverage{{{one}}}", "{{stream}} {{ahead}}"),
                        most=1,
                    ),
                ],
            ),
            (
                "All sensors",
                [
                    bars(
                        "The least probable readings",
                        "percentunit",
                        "Of all sensors, now.",
                        f"sort(streamer_anomaly_top{{{WHO}}})",
                        "{{stream}}",
                        (0.001, 0.01),
                        low_is_bad=True,
                    ),
                    lines(
                        "Readings",
                        "ops",
                        "Taken, by protocol.",
                        (rate("streamer_readings_total", "protocol"), "{{protocol}}"),
                    ),
                    lines(
                        "Refused readings",
                        "ops",
                        "By reason: busy and store are the daemon's, the others the senders'.",
                        (rate("streamer_refused_readings_total", "reason"), "{{reason}}"),
                    ),
                    lines(
                        "Waiting",
                        "none",
                        "Readings that were taken and are not yet run; beyond"
                        " max_waiting_readings senders are told to wait.",
                        (f"streamer_waiting_readings{{{WHO}}}", "{{instance}}"),
                    ),
                    lines(
                        "What the times of readings were forgiven",
                        "ops",
                        "Steps without a reading, duplicates, late readings, gaps, clocks set back, changes of a step.",
                        (rate("streamer_clock_events_total", "what"), "{{what}}"),
                    ),
                    lines(
                        "In the journal only",
                        "none",
                        "Sensors with readings that a start would have to run again.",
                        (f"streamer_unsaved_sensors{{{WHO}}}", "{{instance}}"),
                    ),
                ],
            ),
            (
                "Senders and watchers",
                [
                    lines(
                        "Watchers",
                        "none",
                        "WebSockets at /v1/sensors.",
                        (f"streamer_subscriptions{{{WHO}}}", "{{instance}}"),
                    ),
                    lines(
                        "MQTT",
                        "ops",
                        "Messages from the broker and forecasts for it, by outcome.",
                        (rate("streamer_mqtt_messages_total", "outcome"), "messages {{outcome}}"),
                        (rate("streamer_mqtt_forecasts_total", "outcome"), "forecasts {{outcome}}"),
                    ),
                    lines(
                        "Dropped forecasts",
                        "ops",
                        "A slow watcher did not get them.",
                        (rate("streamer_dropped_forecasts_total", "protocol"), "{{protocol}}"),
                    ),
                ],
            ),
        ],
        chosen("sensor", "sensor", f"label_values(streamer_forecast_reading{{{WHO}}}, stream)"),
    )
