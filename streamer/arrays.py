"""Numbers of any nesting as an array of a model's dtype: only floats may change, by rounding."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NotNumbers", "numbers", "within"]

SHOWN = 5


class NotNumbers(ValueError):  # noqa: N818
    """Values that the dtype can't hold, or that are no numbers."""


def numbers(values: Any, dtype: str, what: str) -> NDArray[Any]:
    """Numbers of any nesting as an array of ``dtype``; only floats may change, by rounding. ``None`` is NaN.

    Raises :class:`NotNumbers` for a value that is not a number or does not fit into ``dtype``, and for rows of several
    lengths.
    """
    wanted = np.dtype(dtype)
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError, TypeError):  # lists of several lengths
        raise NotNumbers(f"{what} has rows of different shapes: {_odd(values)}") from None
    if array.dtype == object:
        array = _with_missing(values, wanted, what)
    if array.size == 0:
        return array.astype(wanted)
    if array.dtype.kind not in "bifu":
        raise NotNumbers(f"{what} is {dtype}, not text, and nothing else but numbers")
    if array.dtype == wanted:
        return array
    if wanted.kind == "b":
        if array.dtype.kind == "f" or not within(array, 0, 1):
            raise NotNumbers(f"{what} is bool: true, false, 0 or 1")
    elif wanted.kind in "iu":
        kind = np.iinfo(wanted)
        if array.dtype.kind == "f" and not bool((np.isfinite(array) & (array == np.trunc(array))).all()):
            raise NotNumbers(f"{what} is {dtype}: whole numbers, not {float(array.flat[0])!r} or the like")
        if not within(array, kind.min, kind.max):
            raise NotNumbers(f"{what} is {dtype}, from {kind.min} to {kind.max}: {array.min()} to {array.max()} came")
    elif not np.maximum.reduce(np.abs(array), axis=None) <= _largest(wanted):  # infinite, missing, or too large
        with np.errstate(over="ignore"):
            fitted = array.astype(wanted)
        if array.dtype.kind == "f" and not np.array_equal(np.isinf(fitted), np.isinf(array)):
            raise NotNumbers(f"{what} is {dtype}: {np.abs(array[np.isfinite(array)]).max():g} is too large for it")
        return fitted
    return array.astype(wanted)


def _with_missing(values: Any, wanted: np.dtype[Any], what: str) -> NDArray[Any]:
    """Convert an object array, which has ``None``, text, or an integer beyond 64 bits in it."""
    if wanted.kind != "f":
        raise NotNumbers(f"{what} is {wanted}: every number must be there, and fit into it")
    try:
        return np.asarray(values, np.float64)  # None becomes NaN
    except (ValueError, TypeError, OverflowError):
        raise NotNumbers(f"{what} is {wanted}: numbers or null, not {_odd(values)}") from None


@lru_cache
def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).max)


def within(array: NDArray[Any], low: int, high: int) -> bool:
    """Whether all numbers, at least one, are from ``low`` to ``high``."""
    return bool(low <= array.min() and array.max() <= high)


def _odd(values: Any) -> str:
    """A few of the offending values, for the message."""
    text = repr(list(values)[:SHOWN]) if isinstance(values, (list, tuple)) else repr(values)
    return text if len(text) <= 120 else text[:120] + "..."
