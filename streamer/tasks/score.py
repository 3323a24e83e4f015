"""A forecaster's own track record, stream by stream: every forecast waits until what it spoke of is there.

Compared with persistence, which says that everything stays as it is: the same readings, the same steps ahead. Forecasts
that were made at a missing reading are not scored, since what stays as it is can't be said there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score", "Summary"]

#: Steps ahead that are scored at most; of a longer horizon these many, spread evenly. Bounds a stream's memory.
MOST = 64


@dataclass(frozen=True, slots=True)
class Summary:
    """``mae`` and ``mase`` (mean absolute error over persistence's) of the next step and of all; ``None``: no truth
    yet, or persistence made no error.
    """

    mae_first: float | None
    mase_first: float | None
    mae_all: float | None
    mase_all: float | None
    coverage: float | None


class Score:
    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.steps = np.unique(np.linspace(1, horizon, min(horizon, MOST)).round().astype(np.intp))
        width = len(self.steps)
        self._at = self.steps - 1
        self._columns = np.arange(width)
        #: [lower, median, upper, last reading][made so many steps ago, modulo the horizon][of this step ahead]
        self._said = np.full((4, horizon, width), np.nan, np.float64)
        self._now = 0
        #: [forecast's errors, persistence's errors, inside, how many][step ahead]
        self._sums = np.zeros((4, width))

    @property
    def nbytes(self) -> int:
        return self._said.nbytes + self._sums.nbytes

    def truth(self, value: float | None) -> None:
        """One step has passed, with this reading; then :meth:`said` may follow."""
        rows = (self._now - self.steps) % self.horizon
        if value is not None:
            lower, middle, upper, last = self._said[:, rows, self._columns]
            known = ~np.isnan(middle)
            parts = (np.abs(value - middle), np.abs(value - last), (lower <= value) & (value <= upper), known)
            for total, part in zip(self._sums, parts, strict=True):
                total[known] += part[known]
        self._said[:, self._now % self.horizon] = np.nan
        self._now += 1

    def said(self, band: NDArray[np.floating], last: float) -> None:
        """The forecast [lower, median, upper][horizon] made at the reading ``last``, which was the last truth told."""
        row = (self._now - 1) % self.horizon
        self._said[:3, row] = band[:, self._at]
        self._said[3, row] = last

    def forget(self) -> None:
        """What is open stays open: what comes now is not what was spoken of."""
        self._said[:] = np.nan

    def summary(self) -> Summary:
        error, base, inside, count = self._sums
        first = _ratio(error[0], count[0]), _ratio(error[0], base[0])
        return Summary(*first, _mean(error, count), _relative(error, base, count), _ratio(inside.sum(), count.sum()))


def _ratio(one: float, other: float) -> float | None:
    return float(one / other) if other > 0 else None


def _mean(sums: NDArray[np.float64], count: NDArray[np.float64]) -> float | None:
    """Over the steps ahead, each with the same weight, however many of its forecasts are settled."""
    some = count > 0
    return float((sums[some] / count[some]).mean()) if some.any() else None


def _relative(error: NDArray[np.float64], base: NDArray[np.float64], count: NDArray[np.float64]) -> float | None:
    ours, theirs = _mean(error, count), _mean(base, count)
    return None if ours is None or theirs is None else _ratio(ours, theirs)
