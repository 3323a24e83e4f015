"""The dashboard "engine": whether the machine keeps up, and where its time goes."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import MODEL, WHO, board, lines, mean, models_of, number, quantile, rate


def engine() -> Dashboard:
    return board(
        "streamer-engine",
        "Streamer: engine",
        "Whether the daemons keep up, and where their time goes",
        [
            (
                "At a glance",
                [
                    number("Daemons up", "none", "Of those that Prometheus scrapes.", f"sum(up{{{WHO}}})"),
                    number(
                        "Load",
                        "percentunit",
                        "Share of the lanes' time that real-time streams take; from max_load on, new"
                        " streams are refused.",
                        f"max(streamer_load{{{MODEL}}})",
                        (0.5, 0.7),
                    ),
                    number(
                        "Late now",
                        "s",
                        "Time since the oldest waiting chunk was due.",
                        f"max(streamer_lag_max_seconds{{{MODEL}}})",
                        (0.25, 1),
                    ),
                    number(
                        "Streams",
                        "none",
                        "Active or detached.",
                        f'sum(streamer_sessions{{{MODEL},state=~"active|detached"}})',
                    ),
                    number(
                        "Slots taken",
                        "percentunit",
                        "Active and detached streams, of capacity.",
                        f'max(sum by (instance, model) (streamer_sessions{{{MODEL},state=~"active|detached"}})'
                        f" / sum by (instance, model) (streamer_capacity{{{MODEL}}}))",
                        (0.8, 0.95),
                    ),
                    number(
                        "Disk trouble",
                        "none",
                        "Stores that can't be written, or a disk that is nearly full.",
                        f"sum(streamer_disk_trouble{{{WHO}}})",
                        (1, 2),
                    ),
                ],
            ),
            (
                "Lag and load",
                [
                    lines(
                        "Lag",
                        "s",
                        "From the last sample of a chunk to its result. It should stay below a chunk's time.",
                        (quantile(0.5, "streamer_lag_seconds"), "{{model}} p50"),
                        (quantile(0.95, "streamer_lag_seconds"), "{{model}} p95"),
                        (quantile(0.99, "streamer_lag_seconds"), "{{model}} p99"),
                    ),
                    lines(
                        "Load",
                        "percentunit",
                        "Measured share of the lanes' time that real-time streams take; dashed: the"
                        " default max_load, and half the lanes' time.",
                        (f"streamer_load{{{MODEL}}}", "{{instance}} {{model}}"),
                        limits=(0.5, 0.7),
                        most=1,
                    ),
                    lines(
                        "Lanes busy",
                        "percentunit",
                        "Share of the lanes' time spent on batches.",
                        (
                            f"{rate('streamer_busy_seconds_total', 'instance, model', MODEL)}"
                            f" / sum by (instance, model) (streamer_lanes{{{MODEL}}})",
                            "{{instance}} {{model}}",
                        ),
                        limits=(0.8, 0.95),
                        most=1,
                    ),
                    lines(
                        "Streams by state",
                        "none",
                        "detached: without a client; ended: results wait to be fetched.",
                        (f"sum by (model, state) (streamer_sessions{{{MODEL}}})", "{{model}} {{state}}"),
                    ),
                    lines(
                        "Refused streams",
                        "ops",
                        "By reason: capacity and overload concern the machine, the others the clients.",
                        (rate("streamer_refusals_total", "reason"), "{{reason}}"),
                    ),
                    lines(
                        "Delay of the event loop",
                        "s",
                        "The longest of the last seconds: above 0.1 s something blocks it.",
                        (f"streamer_loop_late_seconds{{{WHO}}}", "{{instance}}"),
                        limits=(0.05, 0.1),
                    ),
                ],
            ),
            (
                "Where the time goes",
                [
                    lines(
                        "Batch size",
                        "none",
                        "Mean number of streams; larger batches than streamer_max_batch are not more efficient.",
                        (mean("streamer_batch_size"), "{{model}}"),
                    ),
                    lines(
                        "One run of the model",
                        "s",
                        "Without waiting and decoding.",
                        (quantile(0.5, "streamer_run_seconds"), "{{model}} p50"),
                        (quantile(0.95, "streamer_run_seconds"), "{{model}} p95"),
                    ),
                    lines(
                        "Decoding, and waiting for more streams",
                        "s",
                        "Mean of a batch.",
                        (mean("streamer_decode_seconds"), "{{model}} decode"),
                        (mean("streamer_held_seconds"), "{{model}} held"),
                    ),
                    lines(
                        "Chunks run",
                        "cps",
                        "All streams together.",
                        (rate("streamer_chunks_total", "model", MODEL), "{{model}}"),
                    ),
                    lines(
                        "Failures",
                        "ops",
                        "Failed batches (their streams are closed), failed readings, and results of"
                        " streams that are closed.",
                        (rate("streamer_failed_batches_total", "model", MODEL), "{{model}} batches"),
                        (rate("streamer_failed_readings_total", "model", MODEL), "{{model}} readings"),
                        (rate("streamer_late_results_total", "model", MODEL), "{{model}} late results"),
                    ),
                    lines(
                        "State",
                        "bytes",
                        "Memory of the states of all streams, now and with all slots taken.",
                        (f"sum by (model) (streamer_state_bytes{{{MODEL}}})", "{{model}} now"),
                        (f"sum by (model) (streamer_state_bytes_bound{{{MODEL}}})", "{{model}} at most"),
                    ),
                ],
            ),
            (
                "Disk and network",
                [
                    lines(
                        "Duration of checkpoints",
                        "s",
                        "95th percentile.",
                        (quantile(0.95, "streamer_save_seconds", "instance", WHO), "{{instance}}"),
                        limits=(0.5, 2),
                    ),
                    lines(
                        "Snapshots",
                        "Bps",
                        "Bytes written to the store.",
                        (rate("streamer_snapshot_bytes_total", "instance"), "{{instance}}"),
                    ),
                    lines(
                        "Store errors",
                        "ops",
                        "Reads and writes that failed.",
                        (rate("streamer_store_errors_total", "instance, kind"), "{{instance}} {{kind}}"),
                    ),
                    lines(
                        "Connections",
                        "none",
                        "Open now.",
                        (f"sum by (instance) (streamer_connections{{{WHO}}})", "{{instance}} WebSocket"),
                        (f"sum by (instance) (streamer_http_connections{{{WHO}}})", "{{instance}} HTTP"),
                    ),
                    lines(
                        "Closed WebSockets",
                        "ops",
                        "By close code: 1000 is the end of a stream, 1006 a lost client.",
                        (rate("streamer_connection_closes_total", "code"), "{{code}}"),
                    ),
                    lines(
                        "Refused requests",
                        "ops",
                        "HTTP requests beyond a bound, and denied ones (token, host, origin).",
                        (rate("streamer_refused_requests_total", "reason"), "{{reason}}"),
                        (rate("streamer_denied_requests_total", "reason"), "denied: {{reason}}"),
                    ),
                ],
            ),
        ],
        models_of("streamer_chunks_total"),
    )
