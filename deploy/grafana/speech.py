"""Sound in, words out."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import MODEL, WHO, board, lines, models_of, number, quantile, rate, warmth


def speech() -> Dashboard:
    return board(
        "streamer-speech",
        "Streamer: speech",
        "Sound in, words out: what is spoken, how soon it is written, what is lost on the way",
        [
            (
                "At a glance",
                [
                    number(
                        "Speakers now",
                        "none",
                        "Seconds of sound that are run in a second: streams in real time.",
                        f"sum(rate(streamer_audio_seconds_total{{{MODEL}}}[$__rate_interval]))",
                    ),
                    number(
                        "Lag p95",
                        "s",
                        "From the last sample of a chunk to its result.",
                        quantile(0.95, "streamer_lag_seconds", ""),
                        (0.32, 1),
                    ),
                    number(
                        "Sound waiting",
                        "s",
                        "Received and not yet run, all streams.",
                        f"sum(streamer_buffered_seconds{{{MODEL}}})",
                        (30, 120),
                    ),
                    number(
                        "Finals",
                        "ops",
                        "Utterances a second.",
                        f'sum(rate(streamer_sent_events_total{{{WHO},type="final"}}[$__rate_interval]))',
                    ),
                    number(
                        "Dropped sound",
                        "s",
                        "Streams with overflow gap lost so much in the time shown.",
                        f"sum(increase(streamer_dropped_seconds_total{{{MODEL}}}[$__range]))",
                        (1, 60),
                    ),
                    number(
                        "Recordings", "none", "Uploads that are being transcribed.", f"sum(streamer_uploads{{{WHO}}})"
                    ),
                ],
            ),
            (
                "From sound to words",
                [
                    lines(
                        "Sound run",
                        "none",
                        "Seconds of sound a second.",
                        (rate("streamer_audio_seconds_total", "model", MODEL), "{{model}}"),
                    ),
                    warmth("Lag", "s", "How many chunks came how late.", "streamer_lag_seconds"),
                    lines("Events sent", "ops", "By type.", (rate("streamer_sent_events_total", "type"), "{{type}}")),
                    lines(
                        "Time of lanes for a second of sound",
                        "s",
                        "Since the start; 0.01 means that a lane serves 100 speakers.",
                        (f"streamer_realtime_factor{{{MODEL}}}", "{{instance}} {{model}}"),
                    ),
                    lines(
                        "Received",
                        "Bps",
                        "Rows of all streams.",
                        (rate("streamer_received_bytes_total", "instance"), "{{instance}}"),
                    ),
                    lines(
                        "Sound waiting",
                        "s",
                        "Received and not yet run. It grows where files are sent faster than real time.",
                        (f"sum by (model) (streamer_buffered_seconds{{{MODEL}}})", "{{model}}"),
                    ),
                ],
            ),
            (
                "What goes wrong",
                [
                    lines(
                        "Bad input",
                        "ops",
                        "What clients were told: the codes of docs/operations.md.",
                        (rate("streamer_bad_input_total", "reason"), "{{reason}}"),
                    ),
                    lines(
                        "Streams of another format",
                        "ops",
                        "Sound that looks like floats, another byte order or a file.",
                        (rate("streamer_suspected_streams_total", "format"), "{{format}}"),
                    ),
                    lines(
                        "Comings and goings",
                        "ops",
                        "Streams opened, resumed, given up.",
                        (rate("streamer_sessions_opened_total", "model", MODEL), "{{model}} opened"),
                        (rate("streamer_resumes_total", "source"), "resumed from {{source}}"),
                        (rate("streamer_evictions_total", "reason"), "given up: {{reason}}"),
                    ),
                ],
            ),
            (
                "Second pass and other protocols",
                [
                    lines(
                        "Finals that were to be heard again",
                        "ops",
                        "By what became of them; late and full stand as they were.",
                        (rate("streamer_second_pass_finals_total", "outcome"), "{{outcome}}"),
                    ),
                    lines(
                        "From a final to its second hearing",
                        "s",
                        "95 of 100 are faster.",
                        (quantile(0.95, "streamer_second_pass_seconds", "instance", WHO), "{{instance}}"),
                        limits=(5, 10),
                    ),
                    lines(
                        "Vosk, Wyoming, OpenAI",
                        "none",
                        "Open connections.",
                        (f"sum by (protocol) (streamer_protocol_connections{{{WHO}}})", "{{protocol}}"),
                    ),
                ],
            ),
        ],
        models_of("streamer_lag_max_seconds"),
    )
