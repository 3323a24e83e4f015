"""Spans show where the time of one request, stream or chunk goes. Without an installed tracer there are none.

The code begins and ends spans here; :mod:`streamer.serve.otel` sends them as OpenTelemetry. No text, no sound, no value
and no token is ever an attribute. Times are of :func:`time.monotonic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Attribute", "Span", "Tracer", "begin", "install", "tracer", "under"]

Attribute = str | int | float | bool


class Span(Protocol):
    """A span that has begun."""

    def end(self, error: str = "", **attributes: Attribute) -> None:
        """End the span. ``error``: a code if the work failed, else empty. A second call does nothing."""


class Tracer(Protocol):
    """Its methods may be called from any thread; they never block and raise nothing."""

    def begin(
        self, name: str, parent: Span | None, headers: Mapping[str, str] | None, attributes: Mapping[str, Attribute]
    ) -> Span:
        """Begin a span. ``headers``: of a request, by lower-case name; the span continues their ``traceparent``."""

    def past(
        self,
        name: str,
        parent: Span | None,
        since: float,
        parts: Sequence[tuple[str, float]],
        attributes: Mapping[str, Attribute],
    ) -> None:
        """Record a span that has ended. ``parts``: (name, end) of its consecutive children; the first begins at
        ``since``."""

    def chosen(self, count: int) -> int | None:
        """The index of the one chunk or reading among ``count`` that gets a span; ``None``, the usual case: no span."""


_tracer: Tracer | None = None
_parent: ContextVar[Span | None] = ContextVar("span", default=None)


def install(tracer: Tracer | None) -> None:
    """Set the tracer of the whole process; ``None``: no more spans."""
    global _tracer
    _tracer = tracer


def tracer() -> Tracer | None:
    """The installed tracer."""
    return _tracer


def begin(name: str, attributes: Mapping[str, Attribute], headers: Mapping[str, str] | None = None) -> Span | None:
    """A child of the span of :func:`under`, or of the trace in ``headers``; ``None`` without a tracer."""
    return None if _tracer is None else _tracer.begin(name, _parent.get(), headers, attributes)


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """Spans that begin inside, in this task or thread and in those that it starts, are children of ``span``."""
    token = _parent.set(span)
    try:
        yield
    finally:
        _parent.reset(token)
