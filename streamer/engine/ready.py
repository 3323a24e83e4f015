"""The queue of ready streams, the earliest deadline first; streams without a listener come last.

A live stream's chunk is due when it arrives; if a stream sends faster than real time, each further chunk is due when it
would have arrived live. So live sound comes before files, and files get the remaining time.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, Protocol, TypeVar

__all__ = ["HasDeadline", "ReadyQueue"]


class HasDeadline(Protocol):
    """``deadline``: monotonic time at which the chunk is due; 0: when it was queued. ``heard``: it has a listener."""

    deadline: float
    heard: bool


Q = TypeVar("Q", bound=HasDeadline)
#: Outdated entries are kept in the heap, up to the number of valid entries plus this number.
SPARE = 64


class ReadyQueue(Generic[Q]):
    """Each ready stream once. The scheduler's lock guards the queue; ``earliest`` may be read without the lock.

    ``earliest``: deadline of the first stream with a listener; infinite without one.
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
        """Add the stream, or move it if it is queued already and its deadline or listener has changed."""
        there = self._entries.get(stream)
        if there is not None and there[:2] == (not stream.heard, deadline):
            return
        self._number += 1
        entry = self._entries[stream] = (not stream.heard, deadline, self._number, stream)
        heappush(self._heap, entry)
        self._tidy()

    def pop(self) -> Q:
        """Remove and return the first stream. Raises ``IndexError`` if the queue is empty."""
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
