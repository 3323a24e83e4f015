"""Every metric of the daemon, in one table: name, help and buckets. The registry is injected, so tests have one each.

Times are in seconds. The buckets of step times and lags are spaced by octaves and half octaves around usual chunk
durations (40 ms to 1.28 s): a model keeps up as long as its values stay below the duration of its chunk.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["Metrics", "ModelMetrics"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STEP = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 1.28, 2.56)
HELD = (0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
DECODE = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
LAG = (0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.16, 0.24, 0.32, 0.48, 0.64, 1.28, 2.56, 5.12, 10.24)
SAVE = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The table. Names get the prefix ``streamer_``; counters the suffix ``_total`` on the page."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"streamer_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"streamer_{name}", text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"streamer_{name}", text, labels, buckets=buckets, registry=self.registry)

        # -- engine, by model ------------------------------------------------------------------------------------------
        self.steps = counter("steps", "output steps decoded", "model")
        self.chunks = counter("chunks", "chunks run", "model")
        self.batch_size = histogram("batch_size", "streams in a batch, padding not counted", BATCHES, "model")
        self.run_seconds = histogram("run_seconds", "time of one run of the model on a batch", STEP, "model")
        self.held_seconds = histogram("held_seconds", "time that a lane waited for company, by batch", HELD, "model")
        self.decode_seconds = histogram("decode_seconds", "time of decoding one batch", DECODE, "model")
        self.busy_seconds = counter("busy_seconds", "time that lanes spent on batches, all together", "model")
        self.audio_seconds = counter("audio_seconds", "audio that was run", "model")
        self.realtime_factor = gauge("realtime_factor", "lane time per second of audio since the start", "model")
        self.failed_batches = counter("failed_batches", "batches whose run or decoding failed", "model")
        self.failed_readings = counter(
            "failed_readings", "readings that were taken and failed when they were run", "model"
        )
        self.late_results = counter("late_results", "results dropped because their stream was gone", "model")
        self.lag_seconds = Durations("streamer_lag_seconds", "time from a chunk's last sample to its result", LAG)
        self.registry.register(self.lag_seconds)
        self.lag_max = gauge(
            "lag_max_seconds", "time since the oldest waiting chunk of a stream with a client was due", "model"
        )
        self.load = gauge("load", "share of the lanes' time that streams in real time take, as measured", "model")
        self.rows = counter("rows", "rows that were run: samples of sound, vectors, tokens", "model")
        self.buffered = gauge("buffered_seconds", "audio received and not yet run, all streams", "model")
        self.buffered_rows = gauge("buffered_rows", "rows received and not yet run, all streams", "model")

        # -- streams ---------------------------------------------------------------------------------------------------
        self.sessions = gauge("sessions", "streams by state: active, detached, ended", "model", "state")
        self.hotword_sets = gauge("hotword_sets", "different lists of hotwords in use", "model")
        self.opened = counter("sessions_opened", "streams opened", "model")
        self.refusals = counter("refusals", "streams refused", "reason")
        self.evictions = counter("evictions", "streams given up by the daemon", "reason")
        self.resumes = counter("resumes", "streams resumed, from memory or from the store", "source")
        self.dropped_seconds = counter("dropped_seconds", "audio dropped (overflow gap)", "model")
        self.dropped_rows = counter("dropped_rows", "rows dropped (overflow gap): samples, vectors", "model")
        self.dropped_events = counter("dropped_events", "events that fell out of a full replay buffer", "model")
        self.suspected_streams = counter(
            "suspected_streams", "streams of sound that look like another format than int16, by format", "format"
        )
        self.bad_input = counter("bad_input", "data that was refused", "reason")

        # -- the second pass -------------------------------------------------------------------------------------------
        self.finals = counter("second_pass_finals", "finals for the second pass, by outcome", "outcome")
        self.revise_seconds = histogram("second_pass_seconds", "time from a final to its second result", LAG)
        self.waiting_finals = gauge("second_pass_waiting", "finals that wait for the second pass")
        self.waiting_final_seconds = gauge(
            "second_pass_waiting_seconds", "sound of the finals that wait for the second pass"
        )

        # -- sensors ---------------------------------------------------------------------------------------------------
        self.readings = counter("readings", "readings that were taken, by protocol", "protocol")
        self.refused_readings = counter("refused_readings", "readings, lines and bodies that were not taken", "reason")
        self.sensors = gauge("sensors", "sensors that are known")
        self.waiting_readings = gauge("waiting_readings", "readings that were taken and are not yet run")
        self.oldest_reading = gauge("oldest_reading_seconds", "time that the oldest reading has waited to be run")
        self.reading_wait = gauge(
            "reading_wait_seconds", "time that a reading would wait if its sensor has none waiting, as measured"
        )
        self.unsaved_sensors = gauge("unsaved_sensors", "sensors with readings that are in the journal only")
        self.subscriptions = gauge("subscriptions", "WebSocket connections to /v1/sensors")
        self.dropped_forecasts = counter("dropped_forecasts", "forecasts a slow subscriber did not get", "protocol")

        # -- MQTT ------------------------------------------------------------------------------------------------------
        self.mqtt_connected = gauge("mqtt_connected", "1 while the daemon is connected to the broker")
        self.mqtt_reconnects = counter("mqtt_reconnects", "connections to the broker after the first")
        self.mqtt_refused = gauge(
            "mqtt_refused_subscriptions", "topic patterns (mqtt_topics) that the broker does not let the daemon read"
        )
        self.mqtt_messages = counter("mqtt_messages", "messages from the broker", "outcome")
        self.mqtt_forecasts = counter("mqtt_forecasts", "forecasts for the broker", "outcome")

        # -- versions and other daemons --------------------------------------------------------------------------------
        self.reloads = counter("model_reloads", "reloads of changed model files, by outcome", "model", "outcome")
        self.old_models = gauge("old_models", "old versions of models that are kept for their streams")
        self.old_generators = gauge("old_generators", "old versions of generators that are still writing")
        self.moved = counter(
            "moved", "streams and sensors that went to another daemon, or came from one", "kind", "way"
        )

        # -- snapshots -------------------------------------------------------------------------------------------------
        self.snapshots = counter("snapshots", "snapshots written to the store")
        self.snapshot_bytes = counter("snapshot_bytes", "bytes of snapshots written")
        self.save_seconds = histogram("save_seconds", "time of one checkpoint", SAVE)
        self.lost_states = counter(
            "lost_states", "sensors restarted from an empty state: their saved states could not be used"
        )
        self.store_errors = counter("store_errors", "failures of the store", "kind")
        self.disk_trouble = gauge("disk_trouble", "1 while the disk can't be written, or is nearly full", "store")
        self.damaged_stores = counter("damaged_stores", "damaged stores that were rebuilt", "store")
        self.salvaged_rows = counter(
            "salvaged_rows", "rows of damaged stores: kept, or known to be lost", "store", "outcome"
        )

        # -- wire ------------------------------------------------------------------------------------------------------
        self.connections = gauge("connections", "open WebSocket connections")
        self.protocol_connections = gauge(
            "protocol_connections", "open connections of the Vosk, Wyoming and OpenAI realtime protocols", "protocol"
        )
        self.closes = counter("connection_closes", "WebSocket connections closed, by close code", "code")
        self.received_bytes = counter("received_bytes", "bytes of rows received: audio, tensors")
        self.sent_events = counter("sent_events", "events sent, by type", "type")

        # -- HTTP ------------------------------------------------------------------------------------------------------
        self.loop_late = gauge("loop_late_seconds", "longest delay of the event loop in the last seconds")
        self.requests = gauge("requests", "HTTP requests being answered")
        self.http_connections = gauge("http_connections", "HTTP connections that are open, without WebSockets")
        self.closed_http_connections = counter(
            "closed_http_connections", "idle HTTP connections closed to make room for others"
        )
        self.waiting_connections = gauge("waiting_connections", "WebSocket connections that wait for their handshake")
        self.grpc_calls = gauge("grpc_calls", "gRPC calls under way, streams among them")
        self.request_bytes = gauge("request_bytes", "bytes of bodies that requests hold (HTTP, gRPC)")
        self.uploads = gauge("uploads", "recordings that are being transcribed")
        self.refused_requests = counter("refused_requests", "HTTP requests refused, by bound", "reason")

        # -- who may do what -------------------------------------------------------------------------------------------
        self.denied = counter(
            "denied_requests",
            "requests refused by access control: host, origin, token, scope, guess, rate, bytes",
            "reason",
        )
        self.tokens = gauge("tokens", "tokens that are known")

        # -- traces ----------------------------------------------------------------------------------------------------
        self.spans = counter(
            "spans", "spans for the collector: sent, failed (the collector refused them), full", "outcome"
        )
        self.waiting_spans = gauge("waiting_spans", "spans that wait for the collector")

        # -- bounds and build ------------------------------------------------------------------------------------------
        self.capacity = gauge("capacity", "number of streams that the model can hold", "model")
        self.batch_wait = gauge("batch_wait_seconds", "longest wait for company, as configured or measured", "model")
        self.max_batch = gauge("max_batch", "largest batch, as configured or measured", "model")
        self.lanes = gauge("lanes", "worker threads", "model")
        self.state_bytes = gauge("state_bytes", "state of all streams now", "model")
        self.state_bytes_bound = gauge("state_bytes_bound", "state of all streams when every slot is taken", "model")
        self.limit = gauge("limit", "every bound that is a setting, by its name", "name")
        self.build = Info("streamer_build", "version of the daemon and of what it runs on", registry=self.registry)

    def damaged(self, store: str, kept: int, lost: int) -> None:
        """Count a store that was rebuilt: rows ``kept``, and rows known to be ``lost``."""
        self.damaged_stores.labels(store).inc()
        self.salvaged_rows.labels(store, "kept").inc(kept)
        self.salvaged_rows.labels(store, "lost").inc(lost)

    def model(self, name: str) -> ModelMetrics:
        """The metrics of one model."""
        return ModelMetrics(self, name)


class Durations(Collector):
    """A histogram of seconds by model that takes many observations in one call: one ``observe`` for every chunk would
    cost as much as delivering its result. ``bounds``: the buckets' upper bounds, ascending."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, tuple(bounds)
        self._lock = threading.Lock()
        self._models: dict[str, tuple[list[int], list[float]]] = {}  # counts by bucket, and the sum

    def add(self, model: str, seconds: Iterable[float]) -> None:
        """Observe durations of one model. Thread-safe."""
        with self._lock:
            counts, total = self._models.setdefault(model, ([0] * (len(self._bounds) + 1), [0.0]))
            for value in seconds:
                counts[bisect_left(self._bounds, value)] += 1
                total[0] += value

    def describe(self) -> Iterable[HistogramMetricFamily]:
        return [HistogramMetricFamily(self._name, self._text, labels=("model",))]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        (family,) = self.describe()
        with self._lock:
            found = {model: (list(counts), total[0]) for model, (counts, total) in self._models.items()}
        edges = [*map(floatToGoString, self._bounds), "+Inf"]
        for model, (counts, total) in found.items():
            below, buckets = 0, []
            for edge, count in zip(edges, counts, strict=True):
                below += count
                buckets.append((edge, float(below)))
            family.add_metric([model], buckets, total)
        return [family]


class ModelMetrics:
    """One model's metrics. Its label is looked up once, since the engine's loop must not search labels."""

    def __init__(self, table: Metrics, model: str) -> None:
        self.table, self.name = table, model
        self.steps, self.chunks = table.steps.labels(model), table.chunks.labels(model)
        self.batch_size = table.batch_size.labels(model)
        self.run_seconds, self.decode_seconds = table.run_seconds.labels(model), table.decode_seconds.labels(model)
        self.held_seconds = table.held_seconds.labels(model)
        self.busy_seconds, self.audio_seconds = table.busy_seconds.labels(model), table.audio_seconds.labels(model)
        self.failed_batches, self.late_results = table.failed_batches.labels(model), table.late_results.labels(model)
        table.lag_seconds.add(model, ())  # shows it on the page from the start
        self.failed_readings = table.failed_readings.labels(model)
        for outcome in ("reloaded", "failed"):  # an alert sees no increase of a counter that did not exist
            table.reloads.labels(model, outcome)
        self.rows = table.rows.labels(model)
        self.dropped_seconds, self.dropped_rows = table.dropped_seconds.labels(model), table.dropped_rows.labels(model)
        self.dropped_events = table.dropped_events.labels(model)
        self._factor = table.realtime_factor.labels(model)
        self._busy = self._audio = 0.0
        self._ran, self._lags = 0, list[float]()
        self._lock = threading.Lock()

    def chunk(self, rows: int, lag: float | None) -> None:
        """Note a chunk that was run: its rows, and the seconds from its last row to its result (``None``: unknown). The
        next :meth:`batch` counts it."""
        with self._lock:
            self._ran += rows
            if lag is not None:
                self._lags.append(lag)

    def batch(self, streams: int, steps: int, run: float, decode: float, whole: float, audio: float, late: int) -> None:
        """Count a batch that was run: its streams, steps without padding, seconds of ``run``, of ``decode`` and in all
        (``whole``), seconds of audio, late results."""
        self.chunks.inc(streams)
        self.steps.inc(steps)
        self.batch_size.observe(streams)
        self.run_seconds.observe(run)
        self.decode_seconds.observe(decode)
        self.busy_seconds.inc(whole)
        self.audio_seconds.inc(audio)
        with self._lock:
            self._busy += whole
            self._audio += audio
            ran, lags, self._ran, self._lags = self._ran, self._lags, 0, []
            self._factor.set(self._busy / self._audio if self._audio else 0.0)
        self.rows.inc(ran)
        self.table.lag_seconds.add(self.name, lags)
        if late:
            self.late_results.inc(late)

    def watch(self, **values: Callable[[], float]) -> None:
        """Set the functions of this model's gauges (``lag_max``, ``buffered``, ``state_bytes``, ...); the metrics page
        calls them."""
        for name, value in values.items():
            getattr(self.table, name).labels(self.name).set_function(value)
