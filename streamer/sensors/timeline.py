"""Turns the times of readings into steps: finds gaps, duplicates, late readings and clocks that were set back.

All methods work on many streams at once: every array has one row for each slot, and the slots of a call are all
different.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["CHANGED", "GAP", "GLITCH", "LEARN", "RESTARTED", "WHOLE", "Placed", "Timelines", "phases"]

#: Number of differences whose median is the step. Until they are known, each reading is the next step.
LEARN = 8
#: Seconds. A reading from farther back is not late: its sender's clock was set.
FARTHEST = 7 * 86400.0
#: The step is inferred again when the last differences agree within ``ALIKE`` and all differ from the present step.
ALIKE, SLOWER, FASTER = 1.25, 1.5, 0.6
#: Number of late readings, each a step (``FASTER`` to ``SLOWER``) after the previous one, that show that a jump ahead
#: was a glitch of a clock; they must also be more than the readings since the jump.
AGREEING = 3
#: Gaps of ``limit`` masked steps that a stream may fill at first; after that each reading earns masked steps,
#: ``EARNED`` by default. Without this bound a few bytes could cause hours of work.
SAVED, EARNED = 8, 16
#: Breaks. Forecasts made before a break are not scored with readings after it. ``WHOLE``: no break. ``GAP``: more steps
#: are missing than are filled. ``RESTARTED``: the clock was set back. ``CHANGED``: the step of the sensor changed.
#: ``GLITCH``: the readings before it had times in the future; counted as a restart.
WHOLE, GAP, RESTARTED, CHANGED, GLITCH = range(5)

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]
T = TypeVar("T", float, Floats)


class Placed(NamedTuple):
    """``taken`` bool [N]: False for a duplicate or a late reading, which is counted. ``masked`` [N]: steps without a
    reading before it. ``breaks`` [N]: ``WHOLE`` or the kind of break. ``late`` bool [N]: it was left out as late, not
    as a duplicate."""

    taken: NDArray[np.bool_]
    masked: NDArray[np.int64]
    breaks: NDArray[np.uint8]
    late: NDArray[np.bool_]


class Timelines:
    """``step`` in seconds, ``None``: each stream's own, inferred. ``limit``: masked steps for one gap, at most.
    ``earned``: masked steps for each reading, in the long run: a stream begins with a credit of ``SAVED`` gaps of
    ``limit``, and never has more."""

    #: Counters, by slot.
    COUNTS = ("masked", "duplicates", "late", "gaps", "restarts", "changes")

    def __init__(self, capacity: int, step: float | None, limit: int, earned: int = EARNED) -> None:
        self._given = np.nan if step is None else step
        self._limit, self._earned = limit, earned
        self._credit = np.full(capacity, SAVED * limit, np.int64)
        self.step = np.full(capacity, self._given)
        self.last = np.full(capacity, np.nan)
        self._differences = np.zeros((capacity, LEARN))
        self._known = np.zeros(capacity, np.int64)  # differences ever seen; the last LEARN of them are kept
        # a jump ahead: the time before it, readings since then; late readings since then: how many, the last one's time
        self._before = np.full(capacity, np.nan)
        self._since = np.zeros(capacity, np.int64)
        self._behind = np.zeros(capacity, np.int64)
        self._late = np.full(capacity, np.nan)
        self.counts = {name: np.zeros(capacity, np.int64) for name in self.COUNTS}

    def place(self, slots: Slots, times: Floats, stamped: NDArray[np.bool_] | None = None) -> Placed:
        """One reading of each stream; times in unix seconds. ``stamped`` bool [N]: the time is that of arrival, so the
        reading can be neither late nor a duplicate, and where it is not later than the last one, the clock was set."""
        last, step = self.last[slots], self.step[slots]
        ahead = times - last  # NaN: the first reading
        back = ahead < 0
        far = np.zeros(len(slots))
        if back.any():
            pace = self.pace(slots)
            # a reading from farther back than this is not late, but the clock was set
            pace = np.where(np.isnan(pace), 0.0, pace)
            far = np.maximum(np.minimum(pace * self._limit, FARTHEST), pace * LEARN)
            far = np.where(pace > 0, far, 86400.0)
        own = np.ones(len(slots), np.bool_) if stamped is None else ~stamped
        late = back & (-ahead <= far) & own
        glitch = np.zeros(len(slots), np.bool_)
        if late.any():
            glitch[self._glitches(slots, times, late)] = True
            late &= ~glitch
        duplicate = (ahead == 0) & own
        restarted = (ahead <= 0) & ~late & ~duplicate
        taken = ~(duplicate | late)
        forward = ahead > 0
        breaks = np.zeros(len(slots), np.uint8)
        breaks[restarted] = RESTARTED
        breaks[glitch] = GLITCH

        masked = np.zeros(len(slots), np.int64)
        paced = forward & ~np.isnan(step)
        steps = np.rint(np.minimum(ahead[paced] / step[paced], self._limit + 2.0))
        missing = np.maximum(steps, 1).astype(np.int64) - 1
        fill = np.minimum(self._limit, self._credit[slots[paced]])
        masked[paced] = np.minimum(missing, fill)
        breaks[paced] = np.where(missing > fill, GAP, WHOLE)

        with np.errstate(invalid="ignore"):
            jumped = forward & (ahead > SLOWER * self.pace(slots))
        self._since[slots[taken]] += 1
        self._before[slots[jumped]], self._since[slots[jumped]], self._behind[slots[jumped]] = last[jumped], 1, 0
        over = slots[restarted]
        self._before[over], self._behind[over] = np.nan, 0
        self.last[slots[taken]] = times[taken]
        if np.isnan(self._given):
            changed = self._infer(slots, ahead, forward, step)
            masked[changed], breaks[changed] = 0, CHANGED
        if (set_back := restarted & ~glitch).any():
            again = slots[set_back]
            self.step[again], self._known[again] = self._given, 0
        for name, which in (
            ("duplicates", duplicate),
            ("late", late),
            ("gaps", breaks == GAP),
            ("restarts", restarted),
            ("changes", breaks == CHANGED),
        ):
            if which.any():
                self.counts[name][slots] += which
        self.counts["masked"][slots] += masked
        credit = self._credit[slots] + np.where(taken, self._earned, 0) - masked
        self._credit[slots] = np.minimum(credit, SAVED * self._limit)
        return Placed(taken, masked, breaks, late)

    def pace(self, slots: Slots) -> Floats:
        """Seconds, [N]: the step as far as it is known, the median of the differences so far; NaN: there are none."""
        found = self.step[slots]
        unsure = np.flatnonzero(np.isnan(found))
        if len(unsure):
            found[unsure] = self._median(slots[unsure])
        return found

    def clear(self, slot: int) -> None:
        self.step[slot], self.last[slot], self._known[slot] = self._given, np.nan, 0
        self._credit[slot] = SAVED * self._limit
        self._before[slot] = self._late[slot] = np.nan
        self._since[slot] = self._behind[slot] = 0
        for counts in self.counts.values():
            counts[slot] = 0

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        counts = np.array([counts[slot] for counts in self.counts.values()])
        times = np.array([self.step[slot], self.last[slot], *self._differences[slot]])
        jump = np.array([self._before[slot], self._late[slot], self._since[slot], self._behind[slot]])
        return {
            "times": times,
            "counts": np.array([self._known[slot], *counts]),
            "jump": jump,
            "credit": self._credit[slot : slot + 1].copy(),
        }

    def write(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        step, self.last[slot], *self._differences[slot] = saved["times"]
        self.step[slot] = step if np.isnan(self._given) else self._given
        # absent in states of versions that did not detect glitches
        jump = saved.get("jump", (np.nan, np.nan, 0, 0))
        self._before[slot], self._late[slot], self._since[slot], self._behind[slot] = jump
        self._known[slot], *counts = saved["counts"]
        self._credit[slot] = min(int(saved.get("credit", [SAVED * self._limit])[0]), SAVED * self._limit)
        for name, count in zip(self.counts, counts, strict=True):
            self.counts[name][slot] = count

    def _glitches(self, slots: Slots, times: Floats, late: NDArray[np.bool_]) -> Slots:
        """Rows of ``slots`` whose late reading shows that the last jump ahead was a glitch: together with earlier late
        readings it has a regular step, and they are more than the readings since the jump."""
        inside = np.flatnonzero(late & (times > self._before[slots]))
        if not len(inside):
            return inside
        mine, now = slots[inside], times[inside]
        apart, pace = now - self._late[mine], self.pace(mine)
        follows = (self._behind[mine] > 0) & (apart >= FASTER * pace) & (apart <= SLOWER * pace)
        self._behind[mine] = np.where(follows, self._behind[mine] + 1, 1)
        self._late[mine] = now
        found: Slots = inside[(self._behind[mine] >= AGREEING) & (self._behind[mine] > self._since[mine])]
        return found

    def _infer(self, slots: Slots, ahead: Floats, forward: NDArray[np.bool_], step: Floats) -> Slots:
        """Infer steps from differences. Returns the rows of ``slots`` whose known step has just changed."""
        moved = slots[forward]
        self._differences[moved, self._known[moved] % LEARN] = ahead[forward]
        self._known[moved] += 1
        ripe = np.flatnonzero(forward & np.isnan(step) & (self._known[slots] == LEARN))
        if len(ripe):
            self.step[slots[ripe]] = self._median(slots[ripe])
        odd = np.flatnonzero(forward & ((ahead > SLOWER * step) | (ahead < FASTER * step)))
        if len(odd):
            kept = self._differences[slots[odd]]
            odd = odd[(kept.max(1) <= ALIKE * kept.min(1)) & (self._known[slots[odd]] >= LEARN)]
            if len(odd):
                self.step[slots[odd]] = self._median(slots[odd])
        return odd

    def _median(self, slots: Slots) -> Floats:
        count = np.minimum(self._known[slots], LEARN)
        kept = np.where(np.arange(LEARN) < count[:, None], self._differences[slots], np.inf)
        kept.sort(1)
        rows = np.arange(len(slots))
        low, high = kept[rows, np.maximum(count - 1, 0) // 2], kept[rows, np.minimum(count // 2, LEARN - 1)]
        return np.where(count > 0, (low + high) / 2, np.nan)


def phases(time: T) -> tuple[T, T]:
    """Time of day and of week (from Monday) in [0, 1), UTC; 1 January 1970 was a Thursday. Of one time or of many."""
    return time / 86400 % 1, (time / 86400 + 3) / 7 % 1
