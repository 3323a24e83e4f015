"""The visible state of a stream, for any thread."""

from __future__ import annotations

from streamer.engine.engine import Engine, EngineStream
from streamer.names import name_of
from streamer.streams.delivery import Delivery, Sink
from streamer.streams.hearing import SecondHearing
from streamer.streams.holding import Holdable
from streamer.streams.intake import Intake
from streamer.tracing import Attribute, Span, begin

__all__ = ["Facts"]


class Facts(Holdable):
    """Properties of a session. None waits; only the span's methods change anything."""

    id: str
    model: str
    state: str
    resumed: bool
    _engine: Engine
    _delivery: Delivery
    _intake: Intake
    _hearing: SecondHearing | None
    _stream: EngineStream | None
    _span: Span | None = None

    @property
    def engine(self) -> Engine:
        """The engine of the stream's model version, which never changes."""
        return self._engine

    @property
    def sink(self) -> Sink | None:
        return self._delivery.sink

    @property
    def listening(self) -> bool:
        """The stream keeps sound for the second pass, which only a whole snapshot contains."""
        return self.state == "active" and self._hearing is not None

    @property
    def seq(self) -> int:
        return self._delivery.seq

    @property
    def received(self) -> int:
        """Rows accepted from the client: the position of the stream."""
        return self._intake.received

    @property
    def buffered_rows(self) -> int:
        return self._intake.waiting

    @property
    def buffered_seconds(self) -> float:
        return self._intake.waiting * self._intake.row_seconds  # 0 without a clock

    @property
    def resampled(self) -> bool:
        """Its sound comes at another rate than the model's, so :meth:`feed` takes time for resampling."""
        return not self._intake.exact

    @property
    def full(self) -> bool:
        """The next :meth:`feed` would raise :class:`Overflow`; ``on_drained`` is called when there is room. Never with
        ``gap``."""
        return self._intake.full

    @property
    def ending(self) -> bool:
        """The client has ended the stream, and its last rows are being run, or its last finals decoded again."""
        ended = self.state == "ended" and self._delivery.held > 0
        return ended or self.state == "ending" or (self.state == "active" and self._intake.ending)

    @property
    def busy(self) -> bool:
        """A whole chunk, or the end, is waiting or in flight, or a final is in the second pass."""
        if self.state == "ending" or (self.state != "closed" and self._delivery.held):
            return True
        return self.state == "active" and (self._intake.in_flight or self._intake.due)

    def _begin_span(self) -> None:
        """Begin the span of the stream's time in this process."""
        what: dict[str, Attribute] = {
            "streamer.stream": name_of(self.id),
            "streamer.model": self.model,
            "streamer.task": self._engine.manifest.task,
            "streamer.resumed": self.resumed,
        }
        self._span = begin("stream", what)
        if self._stream is not None:
            self._stream.span = self._span

    def _end_span(self, error: str = "") -> None:
        """``error``: a code. Later work does not belong to the span."""
        if self._span is not None:
            span, self._span = self._span, None
            span.end(error, **{"streamer.received": self._intake.received, "streamer.seq": self.seq})
