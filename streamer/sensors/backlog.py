"""The readings that a lane has taken and not yet run: each stream gets its turn, however many another one sent.

A piece holds at most ``DEPTH`` readings of a stream. The rest of a longer queue waits apart, by stream, so that the
cost of starting a piece depends on the number of streams with readings, and not on the number of readings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import StepResult

__all__ = ["DEPTH", "Backlog", "QueuedReadings", "Work"]

Slots = NDArray[np.intp]
#: Readings of one stream in a piece.
DEPTH = 16


@dataclass(frozen=True, slots=True)
class Work:
    """Readings of slots of one lane. ``seq``: of the journal's record that holds them. ``generations``: of the slots
    when the readings were taken; readings of a slot's former owner are late."""

    slots: Slots
    generations: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    stamped: NDArray[np.bool_]
    seq: int
    #: Gets the results, in parts, and ``None`` at the end.
    deliver: Callable[[StepResult | None], None] | None = None
    #: Gets the readings whose run failed, if any.
    fail: Callable[[NDArray[np.intp]], None] | None = None
    #: Gets the readings that were left out, each with a flag: late, else a duplicate.
    leave: Callable[[tuple[NDArray[np.intp], NDArray[np.bool_]]], None] | None = None
    #: Instead of readings: waiting readings of ``slots`` are dropped, then this is called.
    call: Callable[[], None] | None = None
    since: float = field(default_factory=monotonic)

    @classmethod
    def calling(cls, call: Callable[[], None], slots: Slots) -> Work:
        """No readings."""
        nothing = np.zeros(0)
        return cls(slots, nothing.astype(np.int64), nothing, nothing, nothing.astype(np.bool_), 0, call=call)


class QueuedReadings(NamedTuple):
    """Readings, [N]. ``values`` [N, C]. ``seq``: of their record. ``last``: it is its stream's last reading in that
    record. ``whose``: number of the work; ``own``: index in the work."""

    slots: Slots
    generations: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    stamped: NDArray[np.bool_]
    seq: NDArray[np.int64]
    last: NDArray[np.bool_]
    whose: NDArray[np.int64]
    own: NDArray[np.intp]

    def take(self, rows: Any) -> QueuedReadings:
        return QueuedReadings(*(column[rows] for column in self))

    @classmethod
    def joined(cls, parts: list[QueuedReadings]) -> QueuedReadings:
        return parts[0] if len(parts) == 1 else cls(*map(np.concatenate, zip(*parts, strict=True)))


class Backlog:
    """For one thread. ``slots``: their number."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        #: By number: the work, and the number of its readings that are not yet run.
        self.works: dict[int, Work] = {}
        self._left: dict[int, int] = {}
        self._number, self._empty = 0, list[int]()
        self._near: list[QueuedReadings] = []
        self._far: dict[int, deque[QueuedReadings]] = {}  # for each stream the readings after those in `_near`

    def __bool__(self) -> bool:
        return bool(self._left)

    @property
    def since(self) -> float | None:
        """When the oldest unfinished work was taken."""
        return next(iter(self.works.values())).since if self.works else None

    def add(self, work: Work) -> None:
        """Add a work. On any exception nothing was added."""
        count = len(work.slots)
        if not work.generations.shape == work.times.shape == work.stamped.shape == work.values.shape[:1] == (count,):
            raise ValueError("columns of readings are as long as their slots")
        rows = QueuedReadings(
            work.slots,
            work.generations,
            work.times,
            work.values.reshape(count, -1) if count else np.zeros((0, 1)),
            work.stamped,
            np.full(count, work.seq, np.int64),
            _last(work.slots),
            np.full(count, self._number, np.int64),
            np.arange(count),
        )
        self.works[self._number], self._left[self._number] = work, count
        if not count:
            self._empty.append(self._number)
        self._number += 1
        if self._far:
            behind = np.isin(rows.slots, np.fromiter(self._far, np.intp, len(self._far)))
            for slot in np.unique(rows.slots[behind]).tolist():
                self._far[slot].append(rows.take(rows.slots == slot))
            rows = rows.take(~behind)
        if len(rows.slots):
            self._near.append(rows)

    def piece(self) -> QueuedReadings | None:
        """The next readings, grouped by stream, in each stream's order. :meth:`keep` returns those that are not run."""
        self._refill()
        if not self._near:
            return None
        rows, self._near = QueuedReadings.joined(self._near), []
        rows = rows.take(np.argsort(rows.slots, kind="stable"))
        _, first, count = np.unique(rows.slots, return_index=True, return_counts=True)
        if count.max() > DEPTH:
            for stream in np.flatnonzero(count > DEPTH).tolist():
                begin, end = int(first[stream]), int(first[stream] + count[stream])
                rest = rows.take(slice(begin + DEPTH, end))
                self._far.setdefault(int(rows.slots[begin]), deque()).appendleft(rest)
            rows = rows.take(np.arange(len(rows.slots)) - np.repeat(first, count) < DEPTH)
        return rows

    def keep(self, rows: QueuedReadings) -> None:
        if len(rows.slots):
            self._near.insert(0, rows)

    def settle(self, whose: NDArray[np.int64]) -> list[Work]:
        """Count readings that were run, or never will be; returns the works that are finished by that, and those
        without readings."""
        numbers, counts = np.unique(whose, return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            self._left[number] -= count
        ended = [number for number in (*self._empty, *numbers.tolist()) if not self._left[number]]
        self._empty = []
        for number in ended:
            del self._left[number]
        return [self.works.pop(number) for number in ended]

    def drop(self, slots: Slots) -> QueuedReadings | None:
        """Remove and return the waiting readings of ``slots``."""
        found = [part for slot in slots.tolist() for part in self._far.pop(slot, ())]
        kept = []
        for part in self._near:
            theirs = np.isin(part.slots, slots)
            if theirs.any():
                found.append(part.take(theirs))
                part = part.take(~theirs)
            if len(part.slots):
                kept.append(part)
        self._near = kept
        return QueuedReadings.joined(found) if found else None

    def _refill(self) -> None:
        if not self._far:
            return
        counts = np.zeros(self._slots, np.intp)
        for part in self._near:
            np.add.at(counts, part.slots, 1)
        far = np.fromiter(self._far, np.intp, len(self._far))
        for slot in far[counts[far] < DEPTH // 2].tolist():
            queue, room = self._far[slot], DEPTH - int(counts[slot])
            while queue and room:
                part = queue.popleft()
                if len(part.slots) > room:
                    queue.appendleft(part.take(slice(room, None)))
                    part = part.take(slice(room))
                room -= len(part.slots)
                self._near.append(part)
            if not queue:
                del self._far[slot]


def _last(slots: Slots) -> NDArray[np.bool_]:
    found = np.zeros(len(slots), np.bool_)
    _, from_the_end = np.unique(slots[::-1], return_index=True)
    found[len(slots) - 1 - from_the_end] = True
    return found
