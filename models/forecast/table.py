"""Reads a table of sensors and arranges it as the daemon would: rows in order, a constant step, missing rows masked.

The reader is that of ``streamer forecast``; times are converted to steps by the rules of
:mod:`streamer.sensors.timeline`, for all rows at once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.timeline import phases
from streamer.sources.readings import Columns, Readings
from streamer.sources.rows import rows

__all__ = ["RawTable", "Table", "TablePart", "arrange", "needed", "read", "split"]

Floats = NDArray[np.float64]
#: The most missing steps that are filled in one gap, as in ``streamer forecast``.
MOST = 1000
#: Shares of the rows: training, validation, test.
SHARES = (0.6, 0.2, 0.2)
#: The fewest origins of forecasts in each part.
ORIGINS = 48


@dataclass(frozen=True)
class RawTable:
    """``times`` [N] in unix seconds, in the order of the file; ``values`` [N, C], NaN where missing; ``strange``:
    columns without numbers; ``bad``: number of lines that could not be read."""

    name: str
    columns: tuple[str, ...]
    times: Floats
    values: Floats
    strange: tuple[str, ...] = ()
    bad: int = 0


class Table(NamedTuple):
    """Rows ``step`` seconds apart: ``times`` [N] in unix seconds, ``values`` [N, C]. ``stretches`` [N]: the number of
    each row's run without a break. Counts of rows: ``duplicates`` were left out, ``unsorted`` ones came late and were
    sorted, ``masked`` ones were filled in. ``odd``: share of the times between readings that are not near a whole
    number of steps."""

    times: Floats
    values: Floats
    stretches: NDArray[np.int64]
    step: float
    duplicates: int
    unsorted: int
    masked: int
    odd: float

    def inputs(self, chosen: Sequence[int]) -> NDArray[np.float32]:
        """The input rows [N, 2 C + 2] of a model of the ``chosen`` columns."""
        values = self.values[:, chosen]
        there = ~np.isnan(values)
        return np.column_stack([np.where(there, values, 0.0), there, *phases(self.times)]).astype(np.float32)


class TablePart(NamedTuple):
    """Rows ``first`` to ``end``, ``end`` excluded. Forecasts from its ``origins`` are for rows of the part only."""

    first: int
    end: int

    def origins(self, horizon: int) -> range:
        return range(self.first, self.end - horizon)


def read(path: Path, time: str | None, complain: Callable[[str], None]) -> RawTable:
    """Read a CSV or NDJSON, may be gzipped. ``time``: the column of times, ``None`` for the usual names. ``complain``:
    called with a message for each malformed line. Raises ``ValueError`` (``SourceError``) if something is missing."""
    source = Readings(str(path), Columns(time=time, wide=True), complain)
    times = array("d")
    found: dict[str, array[float]] = {}
    try:
        for row, (moment, values, _) in enumerate(rows(source)):
            if moment is None:
                there = ", ".join(source.header or values)[:300]
                raise ValueError(f"{path}: has no column of times among {there}: --time says which it is")
            times.append(moment)
            for column, value in values.items():
                cells = found.setdefault(column, array("d"))
                cells.extend([math.nan] * (row - len(cells)))
                cells.append(math.nan if value is None else value)
    finally:
        source.close()
    columns = sorted(found, key=source.header.index) if source.header else [*found]
    table = np.full((len(times), len(columns)), np.nan)
    for number, column in enumerate(columns):
        table[: len(found[column]), number] = found[column]
    strange = tuple(name for name in source.header if name not in found and name not in source.times)
    return RawTable(path.name, tuple(columns), np.array(times), table, strange, source.bad)


def arrange(times: Floats, values: Floats) -> Table:
    """Rows in order of their ``times`` [N], one for each step. Raises ``ValueError`` without a constant step."""
    order = np.argsort(times, kind="stable")
    late = int((times[1:] < np.maximum.accumulate(times)[:-1]).sum())
    times, values = times[order], values[order]
    new = np.diff(times, prepend=-np.inf) > 0
    times, values, duplicates = times[new], values[new], int((~new).sum())
    if len(times) < 2:
        raise ValueError("two rows with different times are needed to know a step")
    ahead = np.diff(times)
    # from the training rows only: later rows must not change the step
    step = float(np.median(ahead[: max(1, int(SHARES[0] * len(ahead)))]))
    steps = np.maximum(np.rint(ahead / step), 1)
    odd = float(np.mean(np.abs(ahead / step - steps) > 0.25))
    masked = np.minimum(steps - 1, MOST).astype(np.int64)
    if masked.sum() > 10 * len(times):
        raise ValueError(
            f"readings have no constant step: it would be {step:g} s, and nearly all rows would be missing"
        )
    at = np.concatenate([[0], np.cumsum(masked + 1)])  # row of each reading
    count = int(at[-1]) + 1
    rows = np.full((count, values.shape[1]), np.nan)
    rows[at] = values
    behind = np.searchsorted(at, np.arange(count))  # index of each row's reading, or of the next one
    moments = times[behind] - (at[behind] - np.arange(count)) * step
    stretches = np.concatenate([[0], np.cumsum(steps - 1 > MOST)])[behind]
    return Table(moments, rows, stretches, step, duplicates, late, int(masked.sum()), odd)


def needed(horizon: int) -> int:
    """The fewest rows that can be split into three parts."""
    return -(-(2 * horizon + ORIGINS) * 10 // round(10 * min(SHARES)))


def split(count: int, horizon: int) -> dict[str, TablePart]:
    """Split ``count`` rows in order of time into training, validation and test; ``horizon`` rows are left out between
    two parts. Raises ``ValueError`` if there are too few rows."""
    if count < needed(horizon):
        raise ValueError(
            f"{count} rows are too few: {needed(horizon)} are needed to forecast {horizon} steps ahead "
            "(a shorter --horizon needs fewer)"
        )
    ends = [round(sum(SHARES[: number + 1]) * count) for number in range(3)]
    firsts = [0, ends[0] + horizon, ends[1] + horizon]
    return {
        name: TablePart(*part)
        for name, part in zip(("training", "validation", "test"), zip(firsts, ends, strict=True), strict=True)
    }
