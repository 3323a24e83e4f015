"""The last result of every stream, by slot: for ``/v1/forecast`` and the metrics page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import StepResult
from streamer.sensors.layout import RowLayout

__all__ = ["Latest"]

Slots = NDArray[np.intp]


class Latest:
    """One row for each slot, zeros at the start, of the shapes in :class:`RowLayout`. ``time`` is the reading's own.
    ``begun``: there has been a value, so there is a forecast.

    ``arrived``: when the last reading was run, in seconds of ``clock``, which is monotonic: it stops while the machine
    sleeps, and ignores changes of the date. It is not saved; :meth:`ages` are."""

    def __init__(self, capacity: int, layout: RowLayout, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.arrived = np.zeros(capacity)
        each = (capacity, *layout.each)
        self.time = np.zeros(capacity)
        self.value = np.zeros(each)
        self.step = np.zeros(capacity)
        self.begun = np.zeros(each, np.bool_)
        self.anomaly = np.zeros(each, np.float32)
        self.drift = np.zeros(each, np.float32)
        self.quantiles = np.zeros((*each, layout.horizon, len(layout.levels)))
        self.readings = np.zeros(capacity, np.int64)
        self.missing = np.zeros(each, np.int64)
        #: The saved arrays.
        self._arrays: dict[str, NDArray[Any]] = {
            "time": self.time,
            "value": self.value,
            "step": self.step,
            "begun": self.begun,
            "anomaly": self.anomaly,
            "drift": self.drift,
            "quantiles": self.quantiles,
            "readings": self.readings,
            "missing": self.missing,
        }

    @property
    def bytes_per_slot(self) -> int:
        return sum(array[:1].nbytes for array in self._arrays.values())

    def keep(self, result: StepResult) -> None:
        slots = result.slots
        self.time[slots], self.value[slots], self.arrived[slots] = result.times, result.values, self._clock()
        self.step[slots] = result.steps
        self.anomaly[slots], self.drift[slots] = result.anomalies, result.drifts
        self.quantiles[slots] = result.quantiles
        self.readings[slots] += 1
        self.missing[slots] += np.isnan(result.values)

    def ages(self, slots: Slots) -> NDArray[np.float64]:
        """Seconds since the last reading was run."""
        found: NDArray[np.float64] = self._clock() - self.arrived[slots]
        return found

    def set_age(self, slot: int, seconds: float) -> None:
        self.arrived[slot] = self._clock() - seconds

    def silent(self, seconds: float) -> Slots:
        """Slots whose last reading was run more than that time ago."""
        return np.flatnonzero((self.readings > 0) & (self.arrived < self._clock() - seconds))

    def clear(self, slot: int) -> None:
        self.arrived[slot] = 0.0
        for array in self._arrays.values():
            array[slot] = 0

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        return {name: np.array(array[slot]) for name, array in self._arrays.items()}

    def write(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        """Raises ``ValueError`` where they are of other targets or another horizon."""
        for name, array in self._arrays.items():
            if np.shape(saved[name]) != array.shape[1:]:
                raise ValueError(f"the last result was of other targets: {name} is {np.shape(saved[name])}")
        for name, array in self._arrays.items():
            array[slot] = saved[name]
        self.set_age(slot, 0.0)
