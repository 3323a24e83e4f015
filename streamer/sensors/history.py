"""The last readings of every sensor, each with its forecast of one step before: for charts.

In memory alone: after a restart the readings come from the track record, without times of their own and without
forecasts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import StepResult
from streamer.sensors.layout import RowLayout

__all__ = ["History", "PastReadings"]

Floats = NDArray[np.float64]


class PastReadings(NamedTuple):
    """N readings, the oldest first. ``times`` unix seconds; ``values`` (NaN: missing); ``band`` [N, 3]: the outer
    quantiles and the median as they were forecast one step before (NaN: there was no forecast); ``anomalies`` (NaN:
    not known)."""

    times: Floats
    values: Floats
    band: Floats
    anomalies: Floats


class History:
    """``length`` readings for each of ``capacity`` slots and each target. Numbers are kept as differences to the first
    one of a slot, in float32, so that a large level loses no digits. Zeros at the start: a slot that is never used
    takes no memory."""

    def __init__(self, capacity: int, layout: RowLayout, length: int) -> None:
        self.length = length
        targets = len(layout.chosen)
        self._each = targets
        self._outer = [layout.levels.index(level) for level in layout.outer]
        self._times = np.zeros((capacity, length))
        self._rows = np.zeros((capacity, length, targets, 5), np.float32)  # value, low, middle, high, anomaly
        self._base = np.zeros((capacity, targets))
        self._next = np.full((capacity, targets, 3), np.nan, np.float32)  # forecast of the next step
        self._count = np.zeros(capacity, np.int64)

    @property
    def bytes_per_slot(self) -> int:
        return self._times[:1].nbytes + self._rows[:1].nbytes

    def keep(self, result: StepResult) -> None:
        """Add readings of different slots. Called by a lane that holds its ``rows``."""
        if not self.length:
            return
        slots, count = result.slots, len(result.slots)
        values = result.values.reshape(count, self._each)
        unknown = ~result.known.reshape(count, self._each)
        read = self._count[slots]
        if not read.all():
            fresh = slots[read == 0]
            self._base[fresh] = self._next[fresh] = np.nan
        first = result.quantiles.reshape(count, self._each, *result.quantiles.shape[-2:])[:, :, 0]
        base, at = self._base[slots], read % self.length
        if (begins := np.isnan(base)).any():  # a missing value can't be the level: the forecast is, if there is one
            level = np.where(np.isnan(values) & ~unknown, first[:, :, self._outer[1]], values)
            self._base[slots] = base = np.where(begins, level, base)
        row = np.empty((count, self._each, 5), np.float32)
        row[:, :, 0] = values - base
        row[:, :, 1:4] = self._next[slots]
        row[:, :, 4] = result.anomalies.reshape(count, self._each)
        if result.breaks.any():  # earlier forecasts do not apply to these readings
            row[result.breaks > 0, :, 1:4] = np.nan
        row[unknown | np.isnan(values), 4] = np.nan
        self._times[slots, at], self._rows[slots, at] = result.times, row
        with np.errstate(over="ignore", invalid="ignore"):
            ahead = (first[:, :, self._outer] - base[:, :, None]).astype(np.float32)
        ahead[unknown] = np.nan
        self._next[slots] = ahead
        self._count[slots] = read + 1

    def clear(self, slot: int) -> None:
        self._count[slot] = 0

    def read(self, slot: int, target: int) -> PastReadings:
        """The history of a slot. The caller holds the ``rows`` of the slot's lane."""
        count = min(int(self._count[slot]), self.length)
        order = (np.arange(count) + int(self._count[slot]) - count) % max(1, self.length)
        rows: NDArray[Any] = self._rows[slot, order, target].astype(np.float64)
        base = self._base[slot, target]
        band = rows[:, [1, 2, 3]] + base  # layout.outer: low, middle, high
        return PastReadings(self._times[slot, order].copy(), rows[:, 0] + base, band, rows[:, 4])
