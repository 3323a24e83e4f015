"""Rounds a forecast to the digits that its interval's width justifies: 101325 +- 3 needs seven, 20.4 +- 8 needs two."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIGITS", "rounded", "shown"]

#: Digits of an interval's width that are kept for programs, and that are shown to people.
DIGITS, SHOWN = 4, 2
#: Digits of a value without a width (a float32 model's precision), and at most (a float64's precision).
FLOAT32, FLOAT64 = 7, 15


def rounded(quantiles: NDArray[np.floating], digits: int = DIGITS) -> NDArray[np.float64]:
    """``quantiles`` [..., Q], ascending; returns float64 of the same shape, each row rounded to ``digits`` digits of
    its width. NaN and infinity do not change."""
    values = quantiles.astype(np.float64)
    found = values.copy()
    if not values.size:
        return found
    rows, out = values.reshape(-1, values.shape[-1]), found.reshape(-1, values.shape[-1])
    with np.errstate(all="ignore"):
        largest = np.abs(rows).max(1)
        size = np.floor(np.log10(largest))
        width = np.floor(np.log10(rows[:, -1] - rows[:, 0]))
        places = np.where(np.isfinite(width), digits - 1 - width, FLOAT32 - 1 - size)
        places = np.minimum(places, FLOAT64 - 1 - size)
        good = np.isfinite(places) & np.isfinite(largest)
        places = np.where(good, places, 0.0)
        up, down = 10.0 ** np.maximum(places, 0.0)[:, None], 10.0 ** np.maximum(-places, 0.0)[:, None]
        if (places >= 0).all():  # mostly
            made = np.rint(rows * up) / up
        else:
            made = np.rint(rows * up / down) * down / up
    good &= np.isfinite(made).all(1)
    out[good] = made[good]
    return found


def shown(value: float, width: float) -> str:
    """For people: to the second digit of ``width``, without a power of ten where that can be read."""
    if not math.isfinite(value):
        return ""
    size = max(abs(value), abs(width)) if math.isfinite(width) else abs(value)
    if not size:
        return "0"
    places = 3 - math.floor(math.log10(size))
    if math.isfinite(width) and width > 0:
        places = SHOWN - 1 - math.floor(math.log10(width))
    top = math.floor(math.log10(size))
    places = min(places, FLOAT64 - 1 - top)
    if not -5 < top < FLOAT64:
        return f"{value:.{max(0, min(FLOAT64 - 1, top + places))}e}"
    return f"{round(value, places) + 0.0:.{max(0, places)}f}"
