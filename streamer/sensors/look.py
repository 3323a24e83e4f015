"""One stream of a fleet, as it is now: what tables, pictures and ``/v1/forecast/{stream}`` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.latest import Latest
from streamer.sensors.scores import WINDOW, Scores, Track
from streamer.sensors.timeline import Clocks

__all__ = ["Sensor", "Sensors", "look"]


class _Lane(Protocol):
    @property
    def rows(self) -> AbstractContextManager[Any]: ...


class _Room(Protocol):
    @property
    def clocks(self) -> Clocks: ...
    @property
    def track(self) -> Track: ...
    @property
    def latest(self) -> Latest: ...


class Sensors(Protocol):
    """What one looks at: a :class:`streamer.sensors.ingest.Fleet`, or the targets of a model of several variables.

    Whoever holds the ``rows`` of ``lane_of(slot)`` finds all of the slot's parts at the same reading."""

    @property
    def horizon(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def levels(self) -> list[str]: ...
    @property
    def outer(self) -> tuple[str, str, str]: ...
    @property
    def slots(self) -> Mapping[str, int]: ...
    @property
    def names(self) -> Sequence[str]: ...
    @property
    def room(self) -> _Room: ...
    def lane_of(self, slot: int) -> _Lane: ...


@dataclass(frozen=True, slots=True)
class Sensor:
    """``time`` and ``value`` (``None``: missing) of the last reading; ``step`` seconds, ``None``: not known yet;
    ``quantiles`` float32 [H, Q], ``None``: there has been no value. ``counts`` as in :class:`Clocks`. ``life`` and
    ``late`` scores by band of steps ahead."""

    name: str
    time: float
    value: float | None
    step: float | None
    readings: int
    missing: int
    counts: dict[str, int]
    levels: list[str]
    quantiles: NDArray[np.float32] | None
    anomaly: float | None
    drift: float | None
    life: dict[str, Scores]
    late: dict[str, Scores]

    def scores(self) -> dict[str, Any]:
        """Counts and scores, JSON-ready."""
        own = {"readings": self.readings, "missing": self.missing, "step": self.step}
        life, late = ({band: asdict(scores) for band, scores in by.items()} for by in (self.life, self.late))
        return own | self.counts | {"life": life, f"last {WINDOW}": late}

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        curves = {} if self.quantiles is None else dict(zip(self.levels, self.quantiles.T.tolist(), strict=True))
        now = {"stream": self.name, "time": self.time, "value": self.value, "step": self.step, "quantiles": curves}
        return now | {"anomaly": self.anomaly, "drift": self.drift, "scores": self.scores()}


def look(fleet: Sensors, name: str) -> Sensor | None:
    """``None``: there is no such stream, or nothing of it was run yet."""
    slot = fleet.slots.get(name, -1)
    if slot < 0:
        return None
    room, slots = fleet.room, np.array([slot])
    with fleet.lane_of(slot).rows:
        latest = room.latest
        if fleet.names[slot] != name or not latest.readings[slot]:
            return None
        value, step, known = float(latest.value[slot]), float(room.clocks.pace(slots)[0]), bool(latest.begun[slot])
        return Sensor(
            name,
            float(latest.time[slot]),
            None if np.isnan(value) else value,
            None if np.isnan(step) else step,
            int(latest.readings[slot]),
            int(latest.missing[slot]),
            {kind: int(counts[slot]) for kind, counts in room.clocks.counts.items()},
            fleet.levels,
            np.array(latest.quantiles[slot]) if known else None,
            float(latest.anomaly[slot]) if known else None,
            float(latest.drift[slot]) if known else None,
            room.track.summary(slot),
            room.track.summary(slot, late=True),
        )
