"""Who is ready, the earliest deadline first, and behind them the streams that nobody listens to.

A live stream's chunk is due when it comes; of a stream that brings more than real time each further chunk is due when
it would have come live. So what is said now comes before what lies in a file, and files get all that is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, Protocol, TypeVar

__all__ = ["HasDeadline", "ReadyQueue"]


class HasDeadline(Protocol):
    """``deadline``: monotonic time at which the chunk is due; 0: when it was queued. ``heard``: somebody listens."""

    deadline: float
    heard: bool


Q = TypeVar("Q", bound=HasDeadline)
#: Entries that are out of date are kept, up to as many as there are others and these.
SPARE = 64


class ReadyQueue(Generic[Q]):
    """Every stream once. The scheduler's lock guards it; ``earliest`` may be read without.

    ``earliest``: deadline of the first one that somebody listens to; infinite where there is none.
    """

    def __init__(self) -> None:
        self.earliest = inf
        self._heap: list[tuple[bool, float, int, Q]] = []
        self._entries: dict[Q, tuple[bool, float, int, Q]] = {}  # those that count
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Q]:
        return iter(self._entries)

    def push(self, stream: Q, deadline: float) -> None:
        """One that is there already is moved, if what it is ordered by has changed."""
        there = self._entries.get(stream)
        if there is not None and there[:2] == (not stream.heard, deadline):
            return
        self._number += 1
        entry = self._entries[stream] = (not stream.heard, deadline, self._number, stream)
        heappush(self._heap, entry)
        self._tidy()

    def pop(self) -> Q:
        """The first one. Raises ``IndexError``."""
        stream = heappop(self._heap)[3]  # the first entry counts always
        del self._entries[stream]
        self._tidy()
        return stream

    def remove(self, stream: Q) -> None:
        del self._entries[stream]
        self._tidy()

    def _tidy(self) -> None:
        heap, entries = self._heap, self._entries
        if len(heap) > 2 * len(entries) + SPARE:
            heap[:] = entries.values()
            heapify(heap)
        while heap and entries.get(heap[0][3]) is not heap[0]:
            heappop(heap)
        self.earliest = heap[0][1] if heap and not heap[0][0] else inf
