"""The scheduler: the earliest deadline runs first (:mod:`streamer.engine.ready`), each stream at most once in a batch.

A stream is idle, queued or running, which keeps two chunks of one stream out of a batch and its results in order. A
lane takes the ready streams as soon as it becomes free, so batches grow with the load by themselves.

Where batching pays, a lane that finds fewer ready streams than pay waits for more, within a bound counted from the
moment at which a chunk became ready. It does not wait if no arrival is likely in that time, or if it has the chunk of a
stream that is behind, which means that its next chunk was ready at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from time import monotonic
from typing import Generic, Protocol, TypeVar

from streamer.engine.ready import HasDeadline, ReadyQueue

__all__ = ["Gather", "Place", "Queued", "Scheduler"]


class Place(Enum):
    IDLE = 0
    QUEUED = 1
    RUNNING = 2
    AGAIN = 3  # running, and to be queued again after that


class Queued(HasDeadline, Protocol):
    """The scheduler's fields of a stream, written under its lock only. ``since``: monotonic time of being queued;
    ``due``: until when its chunk may wait to be batched. ``deadline`` and ``heard`` are the client's."""

    place: Place
    since: float
    due: float
    closing: bool


Q = TypeVar("Q", bound=Queued)
#: Called when a chunk is ready, with a function that wakes a lane. True: the callee will call the function soon, once
#: for all chunks of this moment; False: the scheduler wakes a lane now. Called under the scheduler's lock: must not
#: block.
Gather = Callable[[Callable[[], None]], bool]


#: Weight of the newest interval between two arrivals in their running mean.
NEWEST = 0.1
#: Longer intervals, in seconds, count as this: a pause says nothing about the arrivals after it.
LONGEST = 1.0
#: Seconds after which a lane checks again whether due chunks of other models still wait.
YIELD = 0.002


class Scheduler(Generic[Q]):
    """``limit``: streams per batch at most. ``ladder``: batch sizes that need no padding, up to it. Thread-safe.

    ``wait``: seconds that a chunk may wait to be batched, 0: never. ``pays``: with this many ready chunks a lane starts
    at once. ``held(seconds)`` records how long a lane waited. ``gather``: see :data:`Gather`.
    """

    def __init__(
        self,
        limit: int,
        ladder: Sequence[int] = (),
        *,
        wait: float = 0.0,
        pays: int = 1,
        held: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = monotonic,
        changed: threading.Condition | None = None,
    ) -> None:
        self.limit, self.wait, self.pays = limit, wait, min(pays, limit) if wait > 0 else 1
        self._ladder = ladder
        self._held, self._clock = held, clock
        self.gather: Gather = lambda wake: False
        #: Whether another model has a due chunk waiting: chunks that are not due yet here let it go first.
        self.elsewhere: Callable[[], bool] = lambda: False
        self._ready: ReadyQueue[Q] = ReadyQueue()
        self._changed = changed or threading.Condition()
        self._waiting = 0
        self._holding = False  # a lane waits for company
        self._running = 0
        self._closed = False
        self._progress = self._arrived = clock()
        self._interval = LONGEST  # mean time between arrivals

    def ready(self, stream: Q) -> None:
        """The stream has a chunk. Idempotent; ignores a closed stream."""
        with self._changed:
            if stream.closing:
                return
            if stream.place is Place.IDLE:
                now = self._clock()
                self._interval += NEWEST * (min(now - self._arrived, LONGEST) - self._interval)
                self._arrived = now
            self._push(stream, self.wait)

    def take(self) -> list[Q]:
        """Wait for work, and for more streams where batching pays; an empty list when closed. Ready streams are divided
        among the waiting lanes, if that leaves each a batch that pays."""
        held = 0.0
        with self._changed:
            self._waiting += 1
            while not self._closed:
                left = self._left()
                if left == 0:
                    break
                if left is None or self._holding:
                    self._changed.wait()
                    continue
                self._holding, begin = True, self._clock()
                self._changed.wait(left)
                self._holding = False
                held += self._clock() - begin
            share = max(-(-len(self._ready) // self._waiting), min(self.pays, len(self._ready)))
            self._waiting -= 1
            if self._closed:
                return []
            batch = [self._ready.pop() for _ in range(self._size(min(share, self.limit)))]
            for stream in batch:
                stream.place = Place.RUNNING
            self._running += len(batch)
            if self._ready:
                self._changed.notify()  # a lane that was not woken for these while this one was holding
        if held:
            self._held(held)
        return batch

    def done(self, batch: Iterable[Q], more: Iterable[bool]) -> list[Q]:
        """The batch has been run. ``more``: streams that have another chunk already. Returns streams that were closed
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
                    self._push(stream, 0.0)  # it is behind: its chunk has waited already
            self._progress = self._clock()
        return closed

    def remove(self, stream: Q) -> bool:
        """Close the stream for good. True if it is not running; False if it is running (:meth:`done` will return it) or
        was closed before.

        So exactly one caller learns that no chunk of the stream is in flight any more.
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

    # -- progress ------------------------------------------------------------------------------------------------------

    def waited(self) -> float:
        """Seconds for which the oldest chunk with a listener has been due: beyond a chunk's duration, streams fall
        behind real time."""
        return max(0.0, self._clock() - self._ready.earliest)  # which is infinite where nothing is

    @property
    def earliest(self) -> float:
        """When the first chunk with a listener is due; infinite if none waits. Reads without the lock."""
        return self._ready.earliest

    def idle(self) -> bool:
        with self._changed:
            return not self._ready and not self._running

    def stalled(self) -> float:
        """Seconds since a batch came back while there was something to do; 0 without work."""
        with self._changed:
            return self._clock() - self._progress if self._ready or self._running else 0.0

    def _size(self, ready: int) -> int:
        """The number of streams to take: all ready ones, unless much of the batch would be padding; then a smaller
        batch."""
        smaller = [rung for rung in self._ladder if rung <= ready]
        padded = next((rung for rung in self._ladder if rung >= ready), ready)
        return smaller[-1] if smaller and padded - ready > ready // 4 else ready

    def _left(self) -> float | None:
        """Seconds to wait for more streams; 0: run the ready ones, ``None``: none is ready."""
        if not self._ready:
            return None
        if self._ready.earliest > self._clock() and self.elsewhere():
            return YIELD
        if len(self._ready) >= self.pays:
            return 0.0
        left = min(stream.due for stream in self._ready) - self._clock()
        return left if left > self._interval else 0.0  # else no arrival is likely

    def _push(self, stream: Q, wait: float) -> None:
        if stream.place is Place.RUNNING:
            stream.place = Place.AGAIN
        elif stream.place is Place.QUEUED:
            self._ready.push(stream, stream.deadline or stream.since)  # its listener may have changed
        elif stream.place is Place.IDLE:
            stream.since = self._clock()
            stream.due = stream.since + wait
            if not self._ready and not self._running:
                self._progress = stream.since  # the clock of stalled() starts with the work
            stream.place = Place.QUEUED
            self._ready.push(stream, stream.deadline or stream.since)
            if self._holding and wait and len(self._ready) < self.pays:
                return  # the lane that holds will see it
            if not self.gather(self._wake):
                self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            if self._ready:
                self._changed.notify()  # and that lane another, if it leaves some
