"""Readings and forecasts in columns: what travels between a way in, the fleet and a way out.

A request with five thousand samples is one of these, not five thousand objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.sources.readings import LARGEST, Reading

__all__ = ["Batch", "Told"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Batch:
    """N readings in the order in which they came. ``names``: streams. ``times`` float64 [N], unix seconds; NaN: it is
    the time of arrival that counts. ``values`` float64 [N]; NaN: missing."""

    names: Sequence[str]
    times: Floats
    values: Floats

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def made(cls, names: Sequence[str], times: Iterable[float], values: Iterable[float]) -> Batch:
        """What is infinite or beyond any sensor (1e30) is missing."""
        found = np.fromiter(values, np.float64, len(names))
        found[~(np.abs(found) < LARGEST)] = np.nan
        return cls(names, np.fromiter(times, np.float64, len(names)), found)

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> Batch:
        nan = float("nan")
        return cls.made(
            [r.stream for r in readings],
            (nan if r.time is None else r.time for r in readings),
            (nan if r.value is None else r.value for r in readings),
        )


@dataclass(frozen=True, slots=True)
class Told:
    """N readings and what was said after each. ``quantiles`` float32 [N, H, Q], ``levels`` (``"0.05"``) [Q] ascending.
    ``steps`` float64 [N]: seconds from one step to the next, NaN where they are not known yet. ``breaks`` [N]: as in
    :mod:`streamer.sensors.timeline`, not 0 where what was forecast before is not about this reading. ``anomalies``
    float32 [N]: the probability of a reading at least as far from what was expected, 1 where nothing was. ``known``
    bool [N]: there is a forecast; a stream without any value yet has none."""

    names: Sequence[str]
    times: Floats
    values: Floats
    steps: Floats
    breaks: NDArray[np.uint8]
    levels: Sequence[str]
    quantiles: NDArray[np.float32]
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self, row: int) -> dict[str, Any]:
        """One reading, JSON-ready."""
        value, step = float(self.values[row]), float(self.steps[row])
        known = bool(self.known[row])
        curves = self.quantiles[row].T.tolist() if known else []
        return {
            "stream": self.names[row],
            "time": float(self.times[row]),
            "value": None if value != value else value,
            "step": None if step != step else step,
            "quantiles": dict(zip(self.levels, curves, strict=False)),
            "anomaly": float(self.anomalies[row]) if known else None,
            "drift": float(self.drifts[row]) if known else None,
        }
