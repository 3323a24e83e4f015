"""The time of readings that carry none."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from streamer.sensors.columns import ReadingBatch

__all__ = ["Arrivals"]

#: Seconds between readings that came together. A clock that goes back by less than ``SET_BACK`` stands still instead.
MOMENT, SET_BACK = 1e-6, 60.0


class Arrivals:
    """Stamps readings without a time with the present time. Readings of one stream in one request get increasing times,
    else they would be duplicates. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0.0

    def __call__(self, batch: ReadingBatch) -> ReadingBatch:
        untimed = np.flatnonzero(np.isnan(batch.times))
        if not len(untimed):
            return batch
        now = self._clock()
        if now > self._last - SET_BACK:
            now = max(now, self._last + MOMENT)
        seen: dict[str, int] = {}
        times = batch.times.copy()
        for row in untimed.tolist():
            name = batch.names[row]
            turn = seen[name] = seen.get(name, -1) + 1
            times[row] = now + turn * MOMENT
        self._last = now + max(seen.values()) * MOMENT
        return ReadingBatch(batch.names, times, batch.values, np.isnan(batch.times))
