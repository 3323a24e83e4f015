"""Who runs next: first come, first served, every stream at most once.

A stream is idle, queued or running, and never two of these; that keeps two chunks of one stream out of a batch and
its results in order. A lane takes what is ready the moment it becomes free: batches grow with the load by themselves,
and nobody waits for company.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from enum import Enum
from time import monotonic
from typing import Generic, Protocol, TypeVar

__all__ = ["Place", "Queued", "Scheduler"]


class Place(Enum):
    IDLE = 0
    QUEUED = 1
    RUNNING = 2
    AGAIN = 3  # running, and to be queued again after that


class Queued(Protocol):
    """What the scheduler keeps in a stream; written under its lock only. ``since``: monotonic time of being queued."""

    place: Place
    since: float
    closing: bool


Q = TypeVar("Q", bound=Queued)


class Scheduler(Generic[Q]):
    """``limit``: streams per batch at most. ``ladder``: batch sizes that need no padding, up to it. Thread-safe."""

    def __init__(self, limit: int, ladder: Sequence[int] = ()) -> None:
        self.limit = limit
        self._ladder = ladder
        self._ready: deque[Q] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._running = 0
        self._closed = False
        self._batches = 0
        self._progress = monotonic()

    def ready(self, stream: Q) -> None:
        """The stream has a chunk. Telling it twice does no harm, nor does telling it of a closed one."""
        with self._changed:
            if not stream.closing:
                self._push(stream)

    def take(self) -> list[Q]:
        """Wait for work; an empty list when closed. What is ready is shared with the other lanes that are waiting."""
        with self._changed:
            self._waiting += 1
            while not self._ready and not self._closed:
                self._changed.wait()
            share = -(-len(self._ready) // self._waiting)
            self._waiting -= 1
            if self._closed:
                return []
            batch = [self._ready.popleft() for _ in range(self._size(min(share, self.limit)))]
            for stream in batch:
                stream.place = Place.RUNNING
            self._running += len(batch)
            return batch

    def done(self, batch: Iterable[Q], more: Iterable[bool]) -> list[Q]:
        """The batch is back. ``more``: the stream has another chunk already. Returns those that were closed
        meanwhile.
        """
        closed = []
        with self._changed:
            for stream, again in zip(batch, more, strict=True):
                self._running -= 1
                again = again or stream.place is Place.AGAIN
                stream.place = Place.IDLE
                if stream.closing:
                    closed.append(stream)
                elif again:
                    self._push(stream)
            self._batches += 1
            self._progress = monotonic()
        return closed

    def remove(self, stream: Q) -> bool:
        """Close the stream for good. True if it is out; False if it is running (:meth:`done` tells of it) or closed
        already.

        So exactly one caller learns that nothing of the stream is under way any more.
        """
        with self._changed:
            if stream.closing:
                return False
            stream.closing = True
            if stream.place is Place.QUEUED:
                self._ready.remove(stream)
                stream.place = Place.IDLE
            return stream.place is Place.IDLE

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # -- how it goes ---------------------------------------------------------------------------------------------------

    @property
    def batches(self) -> int:
        """Batches that have come back."""
        return self._batches

    def waited(self) -> float:
        """Seconds that the longest waiting stream has been ready: beyond a chunk's duration, streams fall behind real
        time.
        """
        with self._changed:
            return monotonic() - self._ready[0].since if self._ready else 0.0

    def idle(self) -> bool:
        with self._changed:
            return not self._ready and not self._running

    def stalled(self) -> float:
        """Seconds since a batch came back while there was something to do; 0 without work."""
        with self._changed:
            return monotonic() - self._progress if self._ready or self._running else 0.0

    def _size(self, ready: int) -> int:
        """All that are ready, unless much of their batch would be padding: then what fills a smaller one."""
        smaller = [rung for rung in self._ladder if rung <= ready]
        padded = next((rung for rung in self._ladder if rung >= ready), ready)
        return smaller[-1] if smaller and padded - ready > ready // 4 else ready

    def _push(self, stream: Q) -> None:
        if stream.place is Place.RUNNING:
            stream.place = Place.AGAIN
        elif stream.place is Place.IDLE:
            stream.since = monotonic()
            if not self._ready and not self._running:
                self._progress = stream.since  # the clock of stalled() starts with the work
            stream.place = Place.QUEUED
            self._ready.append(stream)
            self._changed.notify()
