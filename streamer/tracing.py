"""Where the time of one request, stream or chunk goes: spans, for whoever installs a tracer, else nothing.

Rooms tell what began and ended; :mod:`streamer.serve.otel` sends it as OpenTelemetry. No text, no sound, no value and
no token is ever an attribute. Times are of :func:`time.monotonic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Attribute", "Span", "Tracer", "begin", "install", "tracer", "under"]

Attribute = str | int | float | bool


class Span(Protocol):
    """One that is under way."""

    def end(self, error: str = "", **attributes: Attribute) -> None:
        """``error``: a code, where it went wrong. A second call does nothing."""


class Tracer(Protocol):
    """From any thread; never blocks, and raises nothing."""

    def begin(
        self, name: str, parent: Span | None, headers: Mapping[str, str] | None, attributes: Mapping[str, Attribute]
    ) -> Span:
        """``headers`` by lower-case name: those of a request, whose ``traceparent`` is continued."""

    def past(
        self,
        name: str,
        parent: Span | None,
        since: float,
        parts: Sequence[tuple[str, float]],
        attributes: Mapping[str, Attribute],
    ) -> None:
        """What is over already: ``parts`` (name, end) follow one another from ``since`` on."""

    def chosen(self, count: int) -> int | None:
        """Which one of so many chunks or readings gets a span; ``None``, mostly: none."""


_tracer: Tracer | None = None
_parent: ContextVar[Span | None] = ContextVar("span", default=None)


def install(tracer: Tracer | None) -> None:
    """For the whole process; ``None``: no spans any more."""
    global _tracer
    _tracer = tracer


def tracer() -> Tracer | None:
    return _tracer


def begin(name: str, attributes: Mapping[str, Attribute], headers: Mapping[str, str] | None = None) -> Span | None:
    """A span under that of :func:`under`, or of the trace in ``headers``; ``None`` where there are none."""
    return None if _tracer is None else _tracer.begin(name, _parent.get(), headers, attributes)


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """What begins meanwhile, in this task or thread and in those that it starts, is a part of ``span``."""
    token = _parent.set(span)
    try:
        yield
    finally:
        _parent.reset(token)
