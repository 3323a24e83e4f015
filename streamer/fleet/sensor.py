"""One stream of a fleet, as it is now: what tables, pictures and ``/v1/forecast/{stream}`` show."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.score import WINDOW, Scores

if TYPE_CHECKING:
    from streamer.fleet.fleet import Fleet

__all__ = ["Sensor", "look"]


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


def look(fleet: Fleet, name: str) -> Sensor | None:
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
