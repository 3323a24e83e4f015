"""Deadlines of the chunks of one stream: live ones are due when they come, early ones when they would have come
live."""

from __future__ import annotations

__all__ = ["Pace"]

#: Share of a chunk's time: a stream that is a tenth faster is still live. Clocks differ, and clients catch up after a
#: lost connection.
LIVE = 0.9
#: A stream that is late by up to these seconds may send its missing rows at once.
CREDIT = 1.0
#: A chunk is due at most these seconds after it came: a stream that was ahead and continues live becomes live again.
AHEAD = 10.0


class Pace:
    """``chunk_seconds`` of real time; 0: the model has no clock, and every chunk is due when it comes."""

    __slots__ = ("_next", "_step", "last")

    def __init__(self, chunk_seconds: float) -> None:
        self._step = LIVE * chunk_seconds
        self._next = self.last = 0.0

    def due(self, now: float) -> float:
        """The deadline of the next chunk, which is complete ``now`` (monotonic)."""
        begins = min(max(now - CREDIT, self._next), now + AHEAD)
        self._next, self.last = begins + self._step, max(now, begins)
        return self.last
