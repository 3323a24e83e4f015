"""Readings and forecasts in columns: the data between sources, the fleet and clients.

A request with five thousand samples is one batch of columns, not five thousand objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.names import name_of
from streamer.sensors.digits import rounded

__all__ = ["LARGEST", "Forecasts", "Reading", "ReadingBatch", "Row", "StepResult"]

Floats = NDArray[np.float64]
Numbers = Sequence[float | None] | Floats
#: From here on a reading counts as missing, as infinity does: relative to others it must be a float32.
LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Reading:
    """``time`` in unix seconds, ``None`` where the input has no times; ``value`` ``None``: missing."""

    stream: str
    time: float | None
    value: float | None


class Row(NamedTuple):
    """``time`` in unix seconds, ``None`` where the input has no times; ``values`` by column, ``None``: missing.
    ``stream``: from the column with stream names, ``None``: there is none."""

    time: float | None
    values: dict[str, float | None]
    stream: str | None = None


@dataclass(frozen=True, slots=True)
class ReadingBatch:
    """N readings in order of arrival. ``names``: streams. ``times`` float64 [N], unix seconds; NaN: use the time of
    arrival. ``values`` float64 [N], or [N, C] for a model of C variables; NaN: missing. ``stamped`` bool [N]: the time
    is that of arrival, by this machine's clock; ``None``: all times are the senders'.
    """

    names: Sequence[str]
    times: Floats
    values: Floats
    stamped: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: NDArray[np.intp]) -> ReadingBatch:
        """These readings, in this order."""
        stamped = None if self.stamped is None else self.stamped[rows]
        return ReadingBatch([self.names[row] for row in rows.tolist()], self.times[rows], self.values[rows], stamped)

    @classmethod
    def made(cls, names: Sequence[str], times: Numbers, values: Numbers) -> ReadingBatch:
        """A batch from lists; ``None`` is a missing time or value. Infinite values, and those of 1e30 or more, are
        missing."""
        found = np.array(values, np.float64)  # None becomes NaN
        return cls(names, np.array(times, np.float64), _plausible(found))

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> ReadingBatch:
        return cls.made([r.stream for r in readings], [r.time for r in readings], [r.value for r in readings])

    @classmethod
    def of_rows(cls, rows: Sequence[Row], variables: Sequence[str], stream: str) -> ReadingBatch:
        """Rows of a model with these ``variables``; absent variables are missing. ``stream``: the name for rows without
        one."""
        values = [[_number(row.values.get(name)) for name in variables] for row in rows]
        table = np.array(values, np.float64).reshape(len(rows), len(variables))
        times = np.array([_number(row.time) for row in rows], np.float64)
        return cls([row.stream or stream for row in rows], times, _plausible(table))


@dataclass(frozen=True, slots=True)
class StepResult:
    """Readings that were just run, all of different streams. ``names`` and ``ids``: the slots' owners at that time; by
    now a slot may have another owner. ``at``: indexes of the readings in their work. ``values``: of the targets. The
    rest as in :class:`Forecasts`. The receiver owns the arrays."""

    slots: NDArray[np.intp]
    names: NDArray[np.object_]
    ids: NDArray[np.int64]
    at: NDArray[np.intp]
    times: Floats
    values: Floats
    steps: Floats
    breaks: NDArray[np.uint8]
    quantiles: Floats
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Forecasts:
    """N readings and their forecasts. Of a model with K ``targets`` (empty: for one sensor of any kind) ``values``,
    ``anomalies``, ``drifts`` and ``known`` are [N, K] and ``quantiles`` [N, K, H, Q], else [N] and [N, H, Q].

    ``levels`` (``"0.05"``) [Q] ascending. ``steps`` float64 [N]: seconds from one step to the next, NaN where they are
    not known yet. ``breaks`` uint8 [N]: 0, or the kind of break before this reading, after which earlier forecasts do
    not apply to it, as in :mod:`streamer.sensors.timeline`. ``quantiles`` float64. ``anomalies`` float32: the
    probability of a reading at least as far from its forecast, 1 without a forecast. ``known`` bool: there is a
    forecast; a sensor without any value yet has none.

    ``failed``: (stream, time) of readings that were accepted but whose run failed: they have no forecast. ``late`` and
    ``duplicates``: numbers of readings that were left out."""

    names: Sequence[str]
    times: Floats
    values: Floats
    steps: Floats
    breaks: NDArray[np.uint8]
    levels: Sequence[str]
    quantiles: Floats
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]
    known: NDArray[np.bool_]
    targets: Sequence[str] = ()
    failed: Sequence[tuple[str, float]] = ()
    late: Sequence[tuple[str, float]] = ()
    duplicates: Sequence[tuple[str, float]] = ()

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self, row: int) -> dict[str, Any]:
        """One reading, JSON-ready; with ``targets``, the forecast of each is under its name."""
        return self.to_dicts(slice(row, row + 1))[0]

    def to_dicts(self, rows: slice = slice(None)) -> list[dict[str, Any]]:
        """As :meth:`to_dict`, many readings."""
        said, count = self._said(rows), len(self.targets)
        if count:
            parts = [said[first : first + count] for first in range(0, len(said), count)]
            said = [{"targets": dict(zip(self.targets, part, strict=True))} for part in parts]
        about = zip(self.names[rows], self.times[rows].tolist(), self.steps[rows].tolist(), said, strict=True)
        return [
            {"stream": name_of(name), "time": time, "step": None if step != step else step, **each}
            for name, time, step, each in about
        ]

    def _said(self, rows: slice) -> list[dict[str, Any]]:
        """One dictionary for each target of each reading."""
        curves = self.quantiles[rows]
        curves = np.swapaxes(rounded(curves.reshape(-1, *curves.shape[-2:])), -1, -2)
        columns = (self.values, self.anomalies, self.drifts, self.known)
        flat = (column[rows].ravel().tolist() for column in columns)
        return [
            {
                "value": None if value != value else value,
                "quantiles": dict(zip(self.levels, curve if known else (), strict=False)),
                "anomaly": anomaly if known else None,
                "drift": drift if known else None,
            }
            for curve, value, anomaly, drift, known in zip(curves.tolist(), *flat, strict=True)
        ]

    def finite(self) -> NDArray[np.bool_]:
        """bool [N]: whether all numbers of the reading are finite, so that JSON can express them."""
        known = self.known.reshape(len(self), -1)
        said = np.isfinite(self.quantiles).reshape(*known.shape, -1).all(-1)
        said &= np.isfinite(self.anomalies.reshape(known.shape)) & np.isfinite(self.drifts.reshape(known.shape))
        values = ~np.isinf(self.values).reshape(known.shape)
        found: NDArray[np.bool_] = ((said | ~known) & values).all(1) & np.isfinite(self.times)
        return found


def _number(value: float | None) -> float:
    return np.nan if value is None else value


def _plausible(values: Floats) -> Floats:
    values[~(np.abs(values) < LARGEST)] = np.nan
    return values
