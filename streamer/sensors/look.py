"""The present state of one stream of a fleet, for tables, pictures and ``/v1/forecast/{stream}``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.names import name_of
from streamer.sensors.digits import rounded
from streamer.sensors.ingest import Fleet
from streamer.sensors.scores import WINDOW, Scores

__all__ = ["ALONE", "SensorView", "by_label", "describe", "label", "look", "look_all", "to_dict"]


#: The internal name of a table's only stream of rows, which is not shown.
ALONE = "-"


@dataclass(frozen=True, slots=True)
class SensorView:
    """A stream, or one ``target`` of a stream of rows. ``time`` and ``value`` (``None``: missing) of the last reading;
    ``step`` seconds, ``None``: not known yet; ``quantiles`` float64 [H, Q], ``None``: there has been no value.
    ``counts`` as in :class:`Timelines`. ``life`` and ``late`` scores by band of steps ahead."""

    name: str
    target: str
    time: float
    value: float | None
    step: float | None
    readings: int
    missing: int
    counts: dict[str, int]
    levels: Sequence[str]
    quantiles: NDArray[np.float64] | None
    anomaly: float | None
    drift: float | None
    life: dict[str, Scores]
    late: dict[str, Scores]

    @property
    def label(self) -> str:
        return label(self.name, self.target)

    def scores(self) -> dict[str, Any]:
        """Counts and scores, JSON-ready."""
        own = {"readings": self.readings, "missing": self.missing, "step": self.step}
        life, late = ({band: asdict(scores) for band, scores in by.items()} for by in (self.life, self.late))
        return own | self.counts | {"life": life, f"last {WINDOW}": late}

    def said(self) -> dict[str, Any]:
        """Its value, its forecast and its scores, JSON-ready."""
        curves = [] if self.quantiles is None else rounded(self.quantiles).T.tolist()
        said = {"quantiles": dict(zip(self.levels, curves, strict=False)), "anomaly": self.anomaly, "drift": self.drift}
        return {"value": self.value} | said | {"scores": self.scores()}


def label(stream: str, target: str) -> str:
    if stream == ALONE:
        return target
    return f"{stream}.{target}" if target else stream


def to_dict(sensors: Sequence[SensorView]) -> dict[str, Any]:
    """One stream, JSON-ready; the forecast of each target is under its name."""
    first = sensors[0]
    found = {"stream": name_of(first.name), "time": first.time, "step": first.step}
    if not first.target:
        return found | first.said()
    return found | {"targets": {sensor.target: sensor.said() for sensor in sensors}}


def look(fleet: Fleet, name: str) -> SensorView | None:
    """The stream's first target. ``None``: there is no such stream, or none of its readings was run yet."""
    found = look_all(fleet, name)
    return found[0] if found else None


def by_label(fleet: Fleet, most: int | None = None) -> dict[str, SensorView]:
    """Every target of the first ``most`` streams."""
    return {sensor.label: sensor for name in list(fleet.slots)[:most] for sensor in look_all(fleet, name)}


def look_all(fleet: Fleet, name: str) -> list[SensorView]:
    """All targets of the stream at the same reading; empty where :func:`look` gives ``None``."""
    slot = fleet.slots.get(name, -1)
    if slot < 0:
        return []
    with fleet.lane_of(slot).rows:
        if fleet.names[slot] != name or not fleet.table.latest.readings[slot]:
            return []
        return [_sensor(fleet, name, slot, at) for at in range(len(fleet.layout.chosen))]


def _sensor(fleet: Fleet, name: str, slot: int, target: int) -> SensorView:
    table, layout = fleet.table, fleet.layout
    latest, slots = table.latest, np.array([slot])
    at = (slot, target) if layout.targets else (slot,)
    row = int(table.tracks(slots)[target])
    value, step, known = float(latest.value[at]), float(table.timelines.pace(slots)[0]), bool(latest.begun[at])
    return SensorView(
        name,
        layout.targets[target] if layout.targets else "",
        float(latest.time[slot]),
        None if np.isnan(value) else value,
        None if np.isnan(step) else step,
        int(latest.readings[slot]),
        int(latest.missing[at]),
        {kind: int(counts[slot]) for kind, counts in table.timelines.counts.items()},
        layout.levels,
        np.array(latest.quantiles[at]) if known else None,
        float(latest.anomaly[at]) if known else None,
        float(latest.drift[at]) if known else None,
        table.track.summary(row),
        table.track.summary(row, late=True),
    )


def describe(fleet: Fleet) -> dict[str, Any]:
    """The model, as ``/v1/models`` says it; JSON-ready."""
    manifest, layout = fleet.model.manifest, fleet.layout
    rows = {"variables": list(layout.variables), "targets": list(layout.targets)} if layout.variables else {}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "task": manifest.task,
        "licence": manifest.licence,
        "horizon": layout.horizon,
        "quantiles": list(layout.levels),
        **rows,
        "capacity": fleet.capacity,
        "streams": len(fleet.slots),
        "max_batch": fleet.table.limit,
        "digest": fleet.model.digest,
    }
