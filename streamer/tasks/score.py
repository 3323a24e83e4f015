"""A forecaster's own track record, stream by stream: every forecast waits until what it spoke of is there.

Compared with what costs nothing: persistence (everything stays as it is) and the seasonal naive forecast (as it was a
day ago, at the same time), for the same steps ahead. Forecasts that were made at a missing reading are not scored,
since what stays as it is can't be said there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score", "Scores"]

#: Steps ahead that are scored at most; of a longer horizon these many, spread evenly. Bounds a stream's memory.
MOST = 64
#: Readings of a day, at most, for which there is a seasonal naive forecast.
SEASON = 1440
#: The last step of each band of steps ahead.
EDGES = (1, 6, 24, 96, 384, 4096)
#: What late scores look back on, in readings, and in how many parts they forget.
WINDOW, PARTS = 1000, 8

#: Rows of the sums; the last three are over those forecasts for which there was a reading a day earlier.
ERROR, PERSISTENCE, INSIDE, PINBALL, COUNT, SEASONAL_ERROR, SEASONAL, SEASONS = range(8)
ROWS = 8

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over steps ahead, each with the same weight. ``mase``: mean absolute error over that of the better of
    persistence and the seasonal naive forecast, of the same forecasts. ``pinball``: over all quantiles. ``coverage``:
    of the outermost two. ``None``: no truth yet, or the naive forecasts made no error."""

    mae: float | None
    mase: float | None
    pinball: float | None
    coverage: float | None


class Score:
    """``levels``: of the quantiles, ascending; the middle one is what errors are measured of."""

    def __init__(self, horizon: int, levels: Sequence[float]) -> None:
        self.horizon = horizon
        self.steps = np.unique(np.linspace(1, horizon, min(horizon, MOST)).round().astype(np.intp))
        width = len(self.steps)
        self._levels = np.asarray(levels, np.float64)[:, None]
        self._middle = len(levels) // 2
        self._at = self.steps - 1
        self._columns = np.arange(width)
        #: [quantiles, last reading][made so many steps ago, modulo the horizon][of this step ahead]
        self._said = np.full((len(levels) + 1, horizon, width), np.nan, np.float32)
        self._past = np.full(SEASON + horizon, np.nan, np.float32)  # readings, modulo its length
        self._now = 0
        self._life = np.zeros((ROWS, width))
        self._late = np.zeros((PARTS, ROWS, width))

    @property
    def nbytes(self) -> int:
        return self._said.nbytes + self._past.nbytes + self._life.nbytes + self._late.nbytes

    def truth(self, value: float | None, season: int | None = None) -> None:
        """One step has passed, with this reading; then :meth:`said` may follow. ``season``: steps of a day."""
        part = self._now * PARTS // WINDOW
        if part != (self._now - 1) * PARTS // WINDOW:
            self._late[part % PARTS] = 0.0
        if value is not None:
            found = self._compare(value, season)
            self._life += found
            self._late[part % PARTS] += found
        self._past[self._now % len(self._past)] = np.nan if value is None else value
        self._said[:, self._now % self.horizon] = np.nan
        self._now += 1

    def said(self, quantiles: NDArray[np.floating], last: float) -> None:
        """The forecast [Q][horizon] made at the reading ``last``, which was the last truth told."""
        row = (self._now - 1) % self.horizon
        self._said[:-1, row] = quantiles[:, self._at]
        self._said[-1, row] = last

    def forget(self) -> None:
        """What is open stays open: what comes now is not what was spoken of."""
        self._said[:] = np.nan
        self._past[:] = np.nan

    def summary(self, *, late: bool = False) -> dict[str, Scores]:
        """By band of steps ahead (``"1"``, ``"2-6"``, ...) and for ``"all"``; of the whole life, or of the last
        ``WINDOW`` readings (less an eighth of it at most)."""
        sums = self._late.sum(0) if late else self._life
        found, first = {}, 1
        for edge in EDGES:
            last = min(edge, self.horizon)
            inside = (self.steps >= first) & (self.steps <= last)
            if first <= last and inside.any():
                found[f"{first}-{last}" if first < last else f"{last}"] = _scores(sums[:, inside])
            first = last + 1
        return found | {"all": _scores(sums)}

    def _compare(self, value: float, season: int | None) -> Floats:
        """[row][step ahead]: what this reading adds to the sums."""
        rows = (self._now - self.steps) % self.horizon
        told = self._said[:, rows, self._columns].astype(np.float64)
        quantiles, last = told[:-1], told[-1]
        known = ~np.isnan(last)
        off = value - quantiles
        found = np.zeros((ROWS, len(self.steps)))
        found[ERROR] = np.abs(off[self._middle])
        found[PERSISTENCE] = np.abs(value - last)
        found[INSIDE] = (off[0] >= 0) & (off[-1] <= 0)
        found[PINBALL] = np.maximum(self._levels * off, (self._levels - 1) * off).mean(0)
        found[COUNT] = 1.0
        if season is not None and 1 < season <= SEASON:
            days = -(-self.steps // season) * season  # ago: the last days that were over when the forecast was made
            reachable = (days <= self._now) & (days < len(self._past))
            then = self._past[(self._now - days) % len(self._past)].astype(np.float64)
            usable = reachable & ~np.isnan(then)
            found[SEASONAL_ERROR] = np.where(usable, found[ERROR], 0.0)
            found[SEASONAL] = np.where(usable, np.abs(value - then), 0.0)
            found[SEASONS] = usable
        return np.where(known, found, 0.0)


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
