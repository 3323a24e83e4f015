"""What was said last of every stream, by slot: for whoever asks later, and for the metrics page."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from streamer.sensors.worker import Ran

__all__ = ["Latest"]

Slots = NDArray[np.intp]


class Latest:
    """One row for each slot, zeros at the start. ``arrived``: unix seconds, by this
    machine's clock; ``time`` is the reading's own. ``begun``: there has been a value, so there is a forecast."""

    def __init__(self, capacity: int, horizon: int, levels: int) -> None:
        self.time = np.zeros(capacity)
        self.arrived = np.zeros(capacity)
        self.value = np.zeros(capacity)
        self.step = np.zeros(capacity)
        self.begun = np.zeros(capacity, np.bool_)
        self.anomaly = np.zeros(capacity, np.float32)
        self.drift = np.zeros(capacity, np.float32)
        self.quantiles = np.zeros((capacity, horizon, levels), np.float32)
        self.readings = np.zeros(capacity, np.int64)
        self.missing = np.zeros(capacity, np.int64)
        self._arrays: dict[str, NDArray[Any]] = dict(vars(self))

    @property
    def bytes_per_slot(self) -> int:
        return sum(array[:1].nbytes for array in self._arrays.values())

    def keep(self, slots: Slots, ran: Ran) -> None:
        """Streams that are all different."""
        self.time[slots], self.value[slots], self.arrived[slots] = ran.times, ran.values, time()
        self.step[slots] = ran.steps
        self.anomaly[slots], self.drift[slots] = ran.anomalies, ran.drifts
        self.quantiles[slots] = ran.quantiles
        self.readings[slots] += 1
        self.missing[slots] += np.isnan(ran.values)

    def clear(self, slot: int) -> None:
        for array in self._arrays.values():
            array[slot] = 0

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        return {name: np.array(array[slot]) for name, array in self._arrays.items()}

    def write(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        for name, array in self._arrays.items():
            array[slot] = saved[name]
