"""When the chunks of one stream are due: live ones when they come, those ahead of real time when they would have."""

from __future__ import annotations

__all__ = ["Pace"]

#: Of a chunk's time: what comes a tenth faster is live still. Clocks differ, and who was cut off catches up.
LIVE = 0.9
#: Seconds by which a stream may have been late and bring what it owes at once.
CREDIT = 1.0
#: Seconds that a chunk is due after it came at most: whoever was ahead and goes on live is live again after a while.
AHEAD = 10.0


class Pace:
    """``chunk_seconds`` of real time; 0: the model has no clock, and every chunk is due when it comes."""

    __slots__ = ("_next", "_step", "last")

    def __init__(self, chunk_seconds: float) -> None:
        self._step = LIVE * chunk_seconds
        self._next = self.last = 0.0

    def due(self, now: float) -> float:
        """Of the next chunk, which is complete ``now`` (monotonic)."""
        begins = min(max(now - CREDIT, self._next), now + AHEAD)
        self._next, self.last = begins + self._step, max(now, begins)
        return self.last
