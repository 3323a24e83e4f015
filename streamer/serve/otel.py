"""Sends spans to an OpenTelemetry collector over HTTP (OTLP). Imported only if the settings ask for it.

A thread of the SDK sends them. The number of waiting spans is bounded (``otel_max_waiting_spans``); a span that finds
no room, or that the collector does not take, is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Mapping, Sequence
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any

from streamer import tracing
from streamer.serve.ports import MissingExtraError
from streamer.tracing import Attribute, Span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["OtelTracer", "start_tracing", "wanted"]

log = logging.getLogger(__name__)

#: Most spans in one request to the collector.
TOGETHER = 512
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def wanted(settings: Settings) -> bool:
    """Whether the setting, or OpenTelemetry's own variables, ask for spans."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    named = any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
    return bool(settings.otel_endpoint) or named


def start_tracing(settings: Settings, metrics: Metrics) -> OtelTracer | None:
    """Install the tracer; ``None`` if no spans are wanted. Raises :class:`MissingExtraError`."""
    if not wanted(settings):
        return None
    try:
        tracer = OtelTracer(settings, metrics)
    except ImportError as error:
        text = f"traces need the extra otel ({error}): pip install 'streamer[otel]', or leave otel_endpoint empty"
        raise MissingExtraError(text) from error
    tracing.install(tracer)
    return tracer


class OtelTracer:
    """A :class:`streamer.tracing.Tracer`. Raises ``ImportError`` without the extra."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        import streamer

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "streamer"}
        resource = Resource.create({**named, "service.version": streamer.__version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(_processor(settings, metrics))
        self._tracer = self._provider.get_tracer("streamer")
        self._continued = TraceContextTextMapPropagator()
        self._share, self._seconds = settings.otel_chunk_share, settings.otel_seconds
        self._random = random.Random()

    def begin(
        self, name: str, parent: Span | None, headers: Mapping[str, str] | None, attributes: Mapping[str, Attribute]
    ) -> Span:
        from opentelemetry.trace import SpanKind

        if headers is None:
            context, kind = _context(parent), SpanKind.INTERNAL
        else:
            context, kind = self._continued.extract(dict(headers)), SpanKind.SERVER
        return OtelSpan(self._tracer.start_span(name, context, kind, attributes=dict(attributes)))

    def past(
        self,
        name: str,
        parent: Span | None,
        since: float,
        parts: Sequence[tuple[str, float]],
        attributes: Mapping[str, Attribute],
    ) -> None:
        from opentelemetry.trace import set_span_in_context

        offset = time_ns() - monotonic_ns()
        begin = offset + round(since * 1e9)
        whole = self._tracer.start_span(name, _context(parent), attributes=dict(attributes), start_time=begin)
        inside = set_span_in_context(whole)
        for part, until in parts:
            end = max(begin, offset + round(until * 1e9))
            self._tracer.start_span(f"{name} {part}", inside, start_time=begin).end(end)
            begin = end
        whole.end(begin)

    def chosen(self, count: int) -> int | None:
        return self._random.randrange(count) if count and self._random.random() < self._share * count else None

    def close(self) -> None:
        """Send the waiting spans, for ``otel_seconds`` at most. Blocks."""
        tracing.install(None)
        closing = threading.Thread(target=self._provider.shutdown, name="otel-shutdown", daemon=True)
        closing.start()
        closing.join(self._seconds)


class OtelSpan:
    """A :class:`streamer.tracing.Span`."""

    __slots__ = ("span",)

    def __init__(self, span: Any) -> None:
        self.span = span

    def end(self, error: str = "", **attributes: Attribute) -> None:
        from opentelemetry.trace import StatusCode

        if not self.span.is_recording():
            return
        self.span.set_attributes(attributes)
        if error:
            self.span.set_attribute("error.type", error)
            self.span.set_status(StatusCode.ERROR, error)
        self.span.end()


def _context(parent: Span | None) -> Any:
    """The parent's context; without a parent an empty one, not the current one, which some library may have set."""
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(parent.span, Context()) if isinstance(parent, OtelSpan) else Context()


def _processor(settings: Settings, metrics: Metrics) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # this module logs it once, not for each attempt
    sent, failed, full = (metrics.spans.labels(outcome) for outcome in ("sent", "failed", "full"))
    most, lock = settings.otel_max_waiting_spans, threading.Lock()
    waiting = 0
    metrics.waiting_spans.set_function(lambda: waiting)

    class Counted(SpanExporter):
        """The SDK's exporter, which also counts the outcome of each span."""

        def __init__(self) -> None:
            url = f"{settings.otel_endpoint.rstrip('/')}/v1/traces" if settings.otel_endpoint else None
            self._inner = OTLPSpanExporter(endpoint=url, timeout=settings.otel_seconds)
            self._well = True

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            nonlocal waiting
            try:
                well = self._inner.export(spans) is SpanExportResult.SUCCESS
            except Exception:  # whatever it is, the next spans may get through
                well = False
            (sent if well else failed).inc(len(spans))
            with lock:
                waiting -= len(spans)
            if well is not self._well:
                self._well = well
                if well:
                    log.info("the collector takes spans again")
                else:
                    log.warning("the collector does not take spans: they are dropped (streamer_spans_total)")
            return SpanExportResult.SUCCESS if well else SpanExportResult.FAILURE

        def shutdown(self) -> None:
            self._inner.shutdown()  # type: ignore[no-untyped-call]  # of the SDK

    class Bounded(SpanProcessor):
        """Bounds the SDK's queue; spans that are being sent count, too."""

        def __init__(self) -> None:
            self._inner = BatchSpanProcessor(
                Counted(), max_queue_size=most, max_export_batch_size=min(TOGETHER, most), schedule_delay_millis=1000
            )

        def on_end(self, span: ReadableSpan) -> None:
            nonlocal waiting
            if span.context is None or not span.context.trace_flags.sampled:
                return
            with lock:
                room = waiting < most
                waiting += room
            if room:
                self._inner.on_end(span)
            else:
                full.inc()

        def shutdown(self) -> None:
            self._inner.shutdown()  # type: ignore[no-untyped-call]  # of the SDK

        def force_flush(self, timeout_millis: int = 30000) -> bool:
            return self._inner.force_flush(timeout_millis)

    return Bounded()
