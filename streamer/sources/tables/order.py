"""Readings in time order: a descending or shuffled file is sorted, up to a bound; a few late ones stay, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import Reading, Row
from streamer.sources import SourceError

__all__ = ["FEW", "MOST", "descend", "in_order", "sorted_order"]

#: Most readings that are held in memory for sorting.
MOST = 1_000_000
#: A reading this many steps ahead of its neighbours is a clock glitch, not a sign of disorder.
GLITCH = 10.0
#: Up to this share, readings that are earlier than one before them count as late, not as disorder.
FEW = 0.02

T = TypeVar("T", Reading, Row)
Floats = NDArray[np.float64]


def in_order(readings: Iterable[T], note: Callable[[str], None], most: int = MOST) -> Iterator[T]:
    """The readings, each stream in time order; the sort is stable. Raises :class:`SourceError` for more than ``most``
    readings out of order."""
    source = iter(readings)
    held: list[T] = []
    for reading in source:
        held.append(reading)
        if len(held) > most:
            break
    else:
        yield from _sorted(held, note)
        return
    if _order(held) is not None:
        raise SourceError(
            f"the readings are not in the order of time, and are more than {most}, which can be sorted here: sort them"
        )
    yield from held
    yield from source


def sorted_order(names: list[str] | NDArray[np.object_], times: Floats) -> NDArray[np.intp] | None:
    """The permutation that sorts each stream by time; ``None`` if they are sorted."""
    if not len(times) or np.isnan(times).any():
        return None
    numbers: dict[str, int] = {}
    whose = np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.intp, len(times))
    together = np.lexsort((np.arange(len(times)), whose))
    own, moments = whose[together], times[together]
    back = (moments[1:] < moments[:-1]) & (own[1:] == own[:-1])
    if not back.any():
        return None
    keys = moments.copy()
    for at in np.flatnonzero(back).tolist():
        if at and own[at - 1] == own[at] and moments[at - 1] <= moments[at + 1] and _far(moments, own, at):
            keys[at] = keys[at - 1]
    begins = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
    behind = sum(
        int((keys[begin:end] < np.maximum.accumulate(keys[begin:end])).sum())
        for begin, end in pairwise([*begins.tolist(), len(keys)])
    )
    if behind <= FEW * len(keys):
        return None
    placed = np.empty_like(keys)
    placed[together] = keys
    return np.argsort(placed, kind="stable")


def descend(names: Sequence[str], times: Floats) -> bool:
    """Whether every stream is in descending order, and some stream has more than two readings."""
    last: dict[str, float] = {}
    count = Counter(names)
    if not count or max(count.values()) < 3:
        return False
    for name, at in zip(names, times.tolist(), strict=True):
        if not at < last.get(name, np.inf):
            return False
        last[name] = at
    return True


def _far(moments: Floats, own: NDArray[np.intp], at: int) -> bool:
    around = moments[max(0, at - 10) : at + 12][own[max(0, at - 10) : at + 12] == own[at]]
    step = float(np.median(np.abs(np.diff(around))))
    return bool(moments[at] - moments[at + 1] > GLITCH * step > 0)


def _order(held: list[T]) -> NDArray[np.intp] | None:
    times = np.array([np.nan if reading.time is None else reading.time for reading in held])
    return sorted_order([reading.stream or "" for reading in held], times)


def _sorted(held: list[T], note: Callable[[str], None]) -> Iterator[T]:
    order = _order(held)
    if order is None:
        yield from held
        return
    times = np.array([reading.time for reading in held], np.float64)
    down = bool((np.diff(times) <= 0).all())
    note(f"the lines {'descend' if down else 'are not in the order of time'}: sorted")
    for at in order.tolist():
        yield held[at]
