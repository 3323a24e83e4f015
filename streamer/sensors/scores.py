"""Track records of forecasts, stream by stream: each forecast is scored when its reading arrives.

Forecasts are compared with two naive ones for the same steps ahead: persistence (the last reading) and the seasonal
naive forecast (the reading at the same time a day ago). Forecasts that were made at a missing reading are not scored,
since persistence has no value there.

Readings are kept as differences to a stream's first reading, in float32, so that a large level loses no digits.

All methods work on many streams at once: every array has one row for each slot, and the slots of a call are all
different. Everything starts as zeros, so a slot that was never used takes no memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "WINDOW", "Scores", "Track"]

#: Scored steps ahead, at most; in a longer horizon they are spread evenly. Bounds a stream's memory.
MOST = 64
#: Readings of a day, at most, for which there is a seasonal naive forecast.
SEASON = 1440
#: The last step of each band of steps ahead.
EDGES = (1, 6, 24, 96, 384, 4096)
#: Window of recent scores in readings, and the number of parts in which it forgets.
WINDOW, PARTS = 1000, 8

#: Rows of the sums; the last three cover only forecasts with a reading a day earlier.
ERROR, PERSISTENCE, INSIDE, PINBALL, COUNT, SEASONAL_ERROR, SEASONAL, SEASONS = range(8)
ROWS = 8

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over steps ahead with equal weights. ``mase``: mean absolute error over that of the better of persistence
    and the seasonal naive forecast, on the same forecasts. ``pinball``: over all quantiles. ``coverage``: of the
    outermost two. ``None``: no forecast was scored yet, or the naive forecasts made no error."""

    mae: float | None
    mase: float | None
    pinball: float | None
    coverage: float | None


class Track:
    """``levels``: of the quantiles, ascending; errors are those of the middle one. ``most``: steps ahead that are
    scored."""

    def __init__(self, capacity: int, horizon: int, levels: Sequence[float], most: int = MOST) -> None:
        self.horizon = horizon
        self.steps = np.unique(np.linspace(1, horizon, min(horizon, most)).round().astype(np.intp))
        width = len(self.steps)
        self._levels = np.asarray(levels, np.float64)
        self._middle = len(levels) // 2
        self._columns = np.arange(width)
        # [slot][age in steps, modulo the horizon][step ahead][quantiles, last reading]
        self._said = np.zeros((capacity, horizon, width, len(levels) + 1), np.float32)
        self._open = np.zeros((capacity, horizon), np.bool_)
        self._past = np.zeros((capacity, SEASON + horizon), np.float32)  # readings, modulo its length
        self._there = np.zeros(self._past.shape, np.bool_)
        self._now = np.zeros(capacity, np.int64)
        self._life = np.zeros((capacity, ROWS, width))
        self._late = np.zeros((capacity, PARTS, ROWS, width), np.float32)
        self._base = np.zeros(capacity)
        self._based = np.zeros(capacity, np.bool_)
        self._arrays = {
            "base": self._base,
            "based": self._based,
            "said": self._said,
            "open": self._open,
            "past": self._past,
            "there": self._there,
            "now": self._now,
            "life": self._life,
            "late": self._late,
        }

    @property
    def bytes_per_slot(self) -> int:
        return sum(array[0].nbytes for array in self._arrays.values())

    def truth(self, slots: Slots, values: Floats, seasons: NDArray[np.int64]) -> None:
        """Advance by one step, with this reading of each stream (NaN: missing), and score the forecasts of it; then
        :meth:`said` may follow. ``seasons``: steps of a day, 0: not known."""
        now = self._now[slots]
        parts = now * PARTS // WINDOW
        fresh = parts != (now - 1) * PARTS // WINDOW
        parts %= PARTS
        if fresh.any():
            self._late[slots[fresh], parts[fresh]] = 0.0
        there = ~np.isnan(values)
        known = np.flatnonzero(there)
        if len(known):
            first = slots[known[~self._based[slots[known]]]]
            self._base[first] = values[known[~self._based[slots[known]]]]
            self._based[first] = True
        values = values - self._base[slots]
        if len(known):
            found = self._compare(slots[known], values[known], seasons[known])
            self._life[slots[known]] += found
            self._late[slots[known], parts[known]] += found
        at = now % self._past.shape[1]
        self._past[slots, at] = np.where(there, values, 0.0)
        self._there[slots, at] = there
        self._open[slots, now % self.horizon] = False
        self._now[slots] = now + 1

    def said(self, slots: Slots, quantiles: NDArray[np.floating[Any]], last: Floats) -> None:
        """Add the forecasts [N][horizon][quantiles] made at the readings ``last``, those of the last :meth:`truth`."""
        rows = (self._now[slots] - 1) % self.horizon
        base = self._base[slots]
        self._said[slots, rows, :, :-1] = quantiles[:, self.steps - 1] - base[:, None, None]
        self._said[slots, rows, :, -1] = (last - base)[:, None]
        self._open[slots, rows] = True

    def forget(self, slots: Slots) -> None:
        """Drop the open forecasts without scoring them: they do not apply to the readings after a break."""
        self._open[slots] = False
        self._there[slots] = False

    def clear(self, slot: int) -> None:
        for array in self._arrays.values():
            array[slot] = 0

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        return {name: np.array(array[slot]) for name, array in self._arrays.items()}

    def write(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Raises ``ValueError`` where they are not of this horizon and these steps."""
        saved = {"base": np.zeros(()), "based": np.array(True)} | dict(saved)  # older ones have none
        for name, array in self._arrays.items():
            if saved[name].shape != array.shape[1:]:
                raise ValueError(f"the scores were of other steps: {name} is {saved[name].shape}")
        for name, array in self._arrays.items():
            array[slot] = saved[name]

    def summary(self, slot: int, *, late: bool = False) -> dict[str, Scores]:
        """Scores by band of steps ahead (``"1"``, ``"2-6"``, ...) and for ``"all"``; of the whole life, or of the last
        ``WINDOW`` readings (at most an eighth fewer)."""
        sums = self._late[slot].sum(0, dtype=np.float64) if late else self._life[slot]
        found, first = {}, 1
        for edge in EDGES:
            last = min(edge, self.horizon)
            inside = (self.steps >= first) & (self.steps <= last)
            if first <= last and inside.any():
                found[f"{first}-{last}" if first < last else f"{last}"] = _scores(sums[:, inside])
            first = last + 1
        return found | {"all": _scores(sums)}

    def readings(self, slot: int) -> Floats:
        """The last readings, one a step, the oldest first; NaN: missing."""
        now, length = int(self._now[slot]), self._past.shape[1]
        at = np.arange(max(0, now - length), now) % length
        return np.where(self._there[slot, at], self._past[slot, at] + self._base[slot], np.nan)

    def _compare(self, slots: Slots, values: Floats, seasons: NDArray[np.int64]) -> Floats:
        """The contributions of these readings to the sums, [N][row][step ahead]."""
        now, each, truth = self._now[slots][:, None], slots[:, None], values[:, None]
        made = (now - self.steps) % self.horizon
        rows = (each * self.horizon + made) * len(self.steps) + self._columns
        quantiles = self._said.reshape(-1, self._said.shape[-1]).take(rows, axis=0)
        known = self._open[each, made]
        found = np.zeros((len(slots), ROWS, len(self.steps)))
        pinball = np.zeros(rows.shape)
        # one quantile after another: with them as the innermost axis NumPy would take a step of its loops for each row
        for number, level in enumerate(self._levels.tolist()):
            off = truth - quantiles[..., number]
            pinball += np.maximum(level * off, (level - 1) * off)
            if number == self._middle:
                found[:, ERROR] = np.abs(off)
        last = quantiles[..., -1]
        found[:, PERSISTENCE] = np.abs(truth - last)
        found[:, INSIDE] = (quantiles[..., 0] <= truth) & (truth <= quantiles[..., -2])
        found[:, PINBALL] = pinball / len(self._levels)
        found[:, COUNT] = 1.0
        seasonal = np.flatnonzero((seasons > 1) & (seasons <= SEASON))
        if len(seasonal):
            season, now, each = seasons[seasonal][:, None], now[seasonal], each[seasonal]
            days = -(-self.steps // season) * season  # ago: the last days that were over when the forecast was made
            length = self._past.shape[1]
            at = (now - days) % length
            usable = (days <= now) & (days < length) & self._there[each, at]
            found[seasonal, SEASONAL_ERROR] = np.where(usable, found[seasonal, ERROR], 0.0)
            found[seasonal, SEASONAL] = np.where(usable, np.abs(truth[seasonal] - self._past[each, at]), 0.0)
            found[seasonal, SEASONS] = usable
        return np.where(known[:, None], found, 0.0)


def _scores(sums: Floats) -> Scores:
    count, seasons = sums[COUNT], sums[SEASONS]
    mae = _mean(sums[ERROR], count)
    # the better naive forecast is that of which ours is the larger multiple, each over its own forecasts
    ratios = (
        _ratio(mae, _mean(sums[PERSISTENCE], count)),
        _ratio(_mean(sums[SEASONAL_ERROR], seasons), _mean(sums[SEASONAL], seasons)),
    )
    covered = float(sums[INSIDE].sum() / count.sum()) if count.any() else None
    mase = max((ratio for ratio in ratios if ratio is not None), default=None)
    return Scores(mae, mase, _mean(sums[PINBALL], count), covered)


def _mean(sums: Floats, count: Floats) -> float | None:
    some = count > 0
    return float((sums[some] / count[some]).mean()) if some.any() else None


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None
