"""The dashboard "speech": sound and words."""

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import MODEL, WHO, board, histogram, lines, models_of, number, quantile, rate


def speech() -> Dashboard:
    return board(
        "streamer-speech",
        "Streamer: speech",
        "Sound in, words out: the amount of speech, the lag of its words, dropped sound",
        [
            (
                "At a glance",
                [
                    number(
                        "Speakers now",
                        "none",
                        "Seconds of sound run in a second, which is the number of real-time streams.",
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
                        "Received and not yet run, of all streams.",
                        f"sum(streamer_buffered_seconds{{{MODEL}}})",
                        (30, 120),
                    ),
                    number(
                        "Finals",
                        "ops",
                        "Utterances per second.",
                        f'sum(rate(streamer_sent_events_total{{{WHO},type="final"}}[$__rate_interval]))',
                    ),
                    number(
                        "Dropped sound",
                        "s",
                        "Of streams with overflow gap, in the time shown.",
                        f"sum(increase(streamer_dropped_seconds_total{{{MODEL}}}[$__range]))",
                        (1, 60),
                    ),
                    number("Recordings", "none", "Uploads in transcription.", f"sum(streamer_uploads{{{WHO}}})"),
                ],
            ),
            (
                "From sound to words",
                [
                    lines(
                        "Sound run",
                        "none",
                        "Seconds of sound per second.",
                        (rate("streamer_audio_seconds_total", "model", MODEL), "{{model}}"),
                    ),
                    histogram("Lag", "s", "Number of chunks by lag.", "streamer_lag_seconds"),
                    lines("Events sent", "ops", "By type.", (rate("streamer_sent_events_total", "type"), "{{type}}")),
                    lines(
                        "Lane time for a second of sound",
                        "s",
                        "Since the start; at 0.01 a lane serves 100 speakers.",
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
                        "Received and not yet run. It grows when files are sent faster than real time.",
                        (f"sum by (model) (streamer_buffered_seconds{{{MODEL}}})", "{{model}}"),
                    ),
                ],
            ),
            (
                "Problems",
                [
                    lines(
                        "Bad input",
                        "ops",
                        "By the code that the client got: see docs/operations.md.",
                        (rate("streamer_bad_input_total", "reason"), "{{reason}}"),
                    ),
                    lines(
                        "Streams of another format",
                        "ops",
                        "Sound that looks like floats, another byte order or a file.",
                        (rate("streamer_suspected_streams_total", "format"), "{{format}}"),
                    ),
                    lines(
                        "Opened and evicted streams",
                        "ops",
                        "Streams opened, resumed, evicted.",
                        (rate("streamer_sessions_opened_total", "model", MODEL), "{{model}} opened"),
                        (rate("streamer_resumes_total", "source"), "resumed from {{source}}"),
                        (rate("streamer_evictions_total", "reason"), "evicted: {{reason}}"),
                    ),
                ],
            ),
            (
                "Second pass and other protocols",
                [
                    lines(
                        "Finals for the second pass",
                        "ops",
                        "By outcome; late and full are not revised.",
                        (rate("streamer_second_pass_finals_total", "outcome"), "{{outcome}}"),
                    ),
                    lines(
                        "From a final to its revision",
                        "s",
                        "95th percentile.",
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
