"""The load of one engine's lanes: the cost of batches by size, and the share of chunks that came back late.

A batch of n chunks takes about ``a + b * n`` seconds. The line is fitted to recent batches, so that it includes the
effect of other work on the machine. The cost of sizes that have not occurred yet is known from a measurement at start,
and is scaled by the same factor as the cost of sizes that have occurred.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic, thread_time

from streamer.engine.model import Model

__all__ = ["Load", "batch_costs"]

#: Weight that older batches lose with each new one.
FORGET = 0.01
#: Weight of the measurement at start, in batches.
TRUST = 5.0
#: Seconds of Python for a batch, and for each stream of it: gathering, decoding, delivering.
BATCH_SECONDS, ROW_SECONDS = 500e-6, 50e-6
#: Seconds of one window in which late chunks are counted; the window before it counts, too.
WINDOW = 1.0
#: Share of late chunks that is tolerated, and the number that is tolerated at any share.
FEW, SOME = 0.02, 2


class Load:
    """``limit``: largest batch. ``chunk_seconds``: real time of a chunk, 0 for a model without a clock.

    :meth:`ran` and :meth:`batch` are called by lanes that hold the engine's ``python``; any thread may call the other
    methods, whose numbers may be one batch old.
    """

    def __init__(self, lanes: int, limit: int, chunk_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self.limit, self.chunk_seconds, self._clock = limit, chunk_seconds, clock
        #: Lanes that the processors can run at a time.
        self.parallel = min(lanes, len(os.sched_getaffinity(0)))
        #: A chunk is late if it comes back more than these seconds after it was due.
        self.allowed = float("inf")
        self._sums = (0.0, 0.0, 0.0, 0.0, 0.0)  # weight, n, n * n, seconds, n * seconds
        self._known: list[tuple[int, float]] = []
        self._begin = clock()
        self._ran = self._late = 0
        self._before = (0, 0)

    def expect(self, costs: list[tuple[int, float]]) -> None:
        """Set the seconds of batches by size, as measured at start."""
        self._known = costs

    def batch(self, streams: int, seconds: float) -> None:
        """Add a batch of ``streams`` that took ``seconds``."""
        keep = 1 - FORGET
        weight, n, nn, s, ns = self._sums
        self._sums = (
            keep * weight + 1,
            keep * n + streams,
            keep * nn + streams * streams,
            keep * s + seconds,
            keep * ns + streams * seconds,
        )

    def ran(self, lateness: float) -> None:
        """A chunk came back, ``lateness`` seconds after it was due."""
        gone = self._clock() - self._begin
        if gone >= WINDOW:
            self._before = (self._ran, self._late) if gone < 2 * WINDOW else (0, 0)
            self._ran = self._late = 0
            self._begin += gone
        self._ran += 1
        self._late += lateness > self.allowed

    def late(self) -> bool:
        """Whether too many chunks of the last seconds came back late."""
        gone = self._clock() - self._begin
        if gone >= 2 * WINDOW:
            return False
        (ran, late) = self._before if gone < WINDOW else (0, 0)
        return self._late + late > max(SOME, FEW * (self._ran + ran))

    def seconds(self, streams: int) -> float:
        """Expected seconds of a batch of this size; 0 without any measurement."""
        weight, n, nn, s, ns = self._sums
        dearer = 1.0
        if weight and (foreseen := weight * self._foreseen(n / weight)):
            dearer = s / foreseen
        for size, cost in self._known:
            weight += TRUST
            n += TRUST * size
            nn += TRUST * size * size
            s += TRUST * cost * dearer
            ns += TRUST * size * cost * dearer
        if not weight:
            return 0.0
        spread = nn - n * n / weight
        slope = max(0.0, (ns - n * s / weight) / spread) if spread > 0 else 0.0
        return max(s / weight + slope * (streams - n / weight), slope * streams, 0.0)

    def _foreseen(self, streams: float) -> float:
        """Seconds of a batch of this size, as measured at start; 0 without a measurement."""
        if not self._known:
            return 0.0
        (first, least), (last, most) = self._known[0], self._known[-1]
        return least + (most - least) * (streams - first) / max(1, last - first)

    def share(self, streams: int) -> float:
        """The share of the lanes' time that this number of streams in real time takes; 0 without a clock."""
        if not self.chunk_seconds or not streams:
            return 0.0
        together = max(1, min(self.limit, round(streams / (2 * self.parallel))))  # each waits half a chunk's time
        return streams * self.seconds(together) / (together * self.chunk_seconds * self.parallel)


def batch_costs(model: Model, limit: int) -> list[tuple[int, float]]:
    """CPU seconds of a batch of one and of the largest batch, by size, including the work in Python."""
    costs = []
    for size in sorted({1, limit}):
        feeds = model.zero_feeds(size)
        model.run(feeds)
        begin = thread_time()
        model.run(feeds)
        costs.append((size, thread_time() - begin + BATCH_SECONDS + size * ROW_SECONDS))
    return costs
