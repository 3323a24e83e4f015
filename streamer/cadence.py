"""From the times of one stream to steps: what is a gap, a duplicate, a late reading, a clock that was set back."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

__all__ = ["Cadence", "Steps"]

#: Differences whose median is the step. Until they are there, a reading is the step after the one before it.
LEARN = 8


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a reading goes: behind ``masked`` steps without a reading. ``gap``: there were more than are filled.
    ``restarted``: the clock was set back, times before and after have nothing to do with each other.
    """

    masked: int = 0
    gap: bool = False
    restarted: bool = False


class Cadence:
    """``step`` in seconds, ``None``: inferred. ``limit``: masked steps for one gap, at most."""

    def __init__(self, step: float | None, limit: int) -> None:
        self._given, self._limit = step, limit
        self.step = step
        self.last: float | None = None
        self._differences: list[float] = []
        self.duplicates = self.late = self.masked = self.gaps = self.restarts = 0

    def place(self, time: float) -> Steps | None:
        """The reading of this time; ``None``: it is left out, and counted."""
        if self.last is None:
            self.last = time
            return Steps()
        ahead = time - self.last
        if ahead == 0:
            self.duplicates += 1
            return None
        if ahead < 0:
            if -ahead <= self._far():
                self.late += 1
                return None
            self.restarts += 1
            self.step, self.last, self._differences = self._given, time, []
            return Steps(restarted=True)
        self.last = time
        if self.step is None:
            self._differences.append(ahead)
            if len(self._differences) == LEARN:
                self.step = median(self._differences)
            return Steps()
        missing = max(1, round(ahead / self.step)) - 1
        masked, gap = min(missing, self._limit), missing > self._limit
        self.masked += masked
        self.gaps += gap
        return Steps(masked, gap)

    @property
    def pace(self) -> float | None:
        """The step as far as it is known: the median of the differences so far."""
        return self.step if self.step is not None else median(self._differences) if self._differences else None

    def _far(self) -> float:
        """Seconds back beyond which a reading is not late, but the clock was set. A day, before anything is known."""
        return (self.pace or 86400.0) * max(self._limit, LEARN)
