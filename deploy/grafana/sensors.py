"""The dashboard "sensors": readings and forecasts."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import WHO, bars, board, chosen, lines, number, rate


def sensors() -> Dashboard:
    one = f'{WHO},stream=~"$sensor"'
    return board(
        "streamer-sensors",
        "Streamer: sensors",
        "Readings and forecasts: their errors, and whether any are late",
        [
            (
                "At a glance",
                [
                    number("Sensors", "none", "Known sensors.", f"sum(streamer_sensors{{{WHO}}})"),
                    number(
                        "Readings",
                        "ops",
                        "Accepted per second.",
                        f"sum(rate(streamer_readings_total{{{WHO}}}[$__rate_interval]))",
                    ),
                    number(
                        "Oldest waiting reading",
                        "s",
                        "Accepted and stored, not yet run.",
                        f"max(streamer_oldest_reading_seconds{{{WHO}}})",
                        (5, 30),
                    ),
                    number(
                        "Refused",
                        "ops",
                        "Readings, lines and bodies per second.",
                        f"sum(rate(streamer_refused_readings_total{{{WHO}}}[$__rate_interval])) or vector(0)",
                        (0.01, 1),
                    ),
                    number(
                        "Broker",
                        "none",
                        "1: connected (0 also without a configured broker).",
                        f"min(streamer_mqtt_connected{{{WHO}}})",
                    ),
                    number(
                        "Not on the page",
                        "none",
                        "Sensors beyond max_sensor_series.",
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
                        "The last reading, and the forecast band of the next one.",
                        (f"streamer_forecast_reading{{{one}}}", "{{stream}}"),
                        (f'streamer_forecast{{{one},ahead="1"}}', "{{stream}} {{level}}"),
                    ),
                    lines(
                        "Probability of the last reading",
                        "percentunit",
                        "Of a reading at least this far from its forecast: near 0 is an anomaly.",
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
                        "MASE of the last 1000 forecasts: below 1 the model is better.",
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
                        "Of the last 1000. The outer quantiles' nominal share is 90 % between 0.05 and 0.95.",
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
                        "Accepted, by protocol.",
                        (rate("streamer_readings_total", "protocol"), "{{protocol}}"),
                    ),
                    lines(
                        "Refused readings",
                        "ops",
                        "By reason: busy and store concern the daemon, the others the senders.",
                        (rate("streamer_refused_readings_total", "reason"), "{{reason}}"),
                    ),
                    lines(
                        "Waiting",
                        "none",
                        "Accepted readings that are not yet run; beyond max_waiting_readings, senders have to wait.",
                        (f"streamer_waiting_readings{{{WHO}}}", "{{instance}}"),
                    ),
                    lines(
                        "Irregular times of readings",
                        "ops",
                        "Steps without a reading, duplicates, late readings, gaps, clocks set back, changes of a step.",
                        (rate("streamer_clock_events_total", "what"), "{{what}}"),
                    ),
                    lines(
                        "In the journal only",
                        "none",
                        "Sensors with readings that a start would run again.",
                        (f"streamer_unsaved_sensors{{{WHO}}}", "{{instance}}"),
                    ),
                ],
            ),
            (
                "Brokers and subscribers",
                [
                    lines(
                        "Subscribers",
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
                        "Not sent to slow subscribers.",
                        (rate("streamer_dropped_forecasts_total", "protocol"), "{{protocol}}"),
                    ),
                ],
            ),
        ],
        chosen("sensor", "sensor", f"label_values(streamer_forecast_reading{{{WHO}}}, stream)"),
    )
