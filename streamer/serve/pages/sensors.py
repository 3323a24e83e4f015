"""The data of the page of forecasts: a page of the list of sensors, and one sensor's past."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.names import name_of, owner_of
from streamer.sensors.digits import rounded
from streamer.sensors.history import PastReadings
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import SensorView, label, look_all

__all__ = ["ORDERS", "Order", "SensorPage", "SensorWalks", "past"]

Order = Literal["name", "anomaly", "drift", "recent"]
ORDERS: tuple[Order, ...] = ("name", "anomaly", "drift", "recent")
#: Least seconds for which a walk over all sensors is used; most walks that are kept.
FRESH_SECONDS, WALKS = 2.0, 8


class SensorPage(NamedTuple):
    """``search``: a part of the names, in any case. ``offset`` and ``limit`` count matching sensors."""

    search: str
    order: Order
    offset: int
    limit: int


class _Ranked(NamedTuple):
    rank: float
    label: str
    folded: str  # the text to search in
    name: str
    fleet: Fleet
    target: int


class _Walk(NamedTuple):
    """All sensors of an owner in one order, at the time of the walk. ``until``: seconds of the clock up to which the
    walk is used."""

    until: float
    ranked: list[_Ranked]


class SensorWalks:
    """Walks over all sensors, shared by pages; to be used in threads. A walk serves every page that asks for the same
    within :data:`FRESH_SECONDS`, or four times as long as the walk took. One walk is done at a time. So walks take at
    most a fifth of one thread, however many pages are open. The last :data:`WALKS` are kept."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._walks: dict[tuple[str, Order], _Walk] = {}

    def page(self, fleets: Sequence[Fleet], owner: str, page: SensorPage) -> dict[str, Any]:
        """``{"total", "matching", "sensors": [...]}``; every target of a stream of rows is a sensor of its own."""
        with self._lock:
            everything = self._walk(fleets, owner, page.order)
        wanted = page.search.casefold()
        found = [each for each in everything if wanted in each.folded] if wanted else everything
        chosen = found[page.offset : page.offset + page.limit]
        lines = [_line(each.fleet, views[each.target]) for each in chosen if (views := look_all(each.fleet, each.name))]
        return {"total": len(everything), "matching": len(found), "sensors": lines}

    def _walk(self, fleets: Sequence[Fleet], owner: str, order: Order) -> list[_Ranked]:
        begun = self._clock()
        if (known := self._walks.pop((owner, order), None)) is None or known.until <= begun:
            ranked = _ranked(fleets, owner, order)
            known = _Walk(begun + max(FRESH_SECONDS, 4 * (self._clock() - begun)), ranked)
        while len(self._walks) >= WALKS:
            del self._walks[next(iter(self._walks))]
        self._walks[owner, order] = known
        return known.ranked


def _ranked(fleets: Sequence[Fleet], owner: str, order: Order) -> list[_Ranked]:
    found: list[_Ranked] = []
    for fleet in fleets:
        ranks, targets = _ranks(fleet, order), fleet.layout.targets or ("",)
        for name, slot in fleet.slots.copy().items():
            if owner_of(name) != owner or not fleet.table.latest.readings[slot]:
                continue
            for at, target in enumerate(targets):
                shown = label(name_of(name), target)
                found.append(_Ranked(float(ranks[slot, at]), shown, shown.casefold(), name, fleet, at))
    found.sort(key=lambda each: (each.rank, each.label))
    return found


def _ranks(fleet: Fleet, order: Order) -> NDArray[np.float64]:
    """Ranks as [slots, targets]; the lowest are shown first."""
    latest = fleet.table.latest
    each = len(latest.readings), len(fleet.layout.chosen)
    if order == "name":
        return np.zeros(each)
    if order == "recent":
        return np.repeat(-latest.arrived[:, None], each[1], axis=1)
    known = latest.begun.reshape(each)
    if order == "anomaly":
        return np.where(known, latest.anomaly.reshape(each), 2.0).astype(np.float64)
    return -np.where(known, latest.drift.reshape(each), -1.0).astype(np.float64)


def _line(fleet: Fleet, view: SensorView) -> dict[str, Any]:
    late = view.late["all"]
    return {
        "stream": name_of(view.name),
        "target": view.target,
        "model": fleet.model.manifest.name,
        "time": view.time,
        "value": view.value,
        "step": view.step,
        "readings": view.readings,
        "anomaly": view.anomaly,
        "drift": view.drift,
        "mase": late.mase,
        "coverage": late.coverage,
    }


def past(fleet: Fleet, name: str, most: int) -> dict[str, Any]:
    """``most`` readings of each target: ``{"stream", "model", "levels", "targets": {TARGET: {"times", "values", "low",
    "middle", "high", "anomalies"}}}``, the oldest first; ``null``: no value. Empty: there is no such sensor, or none of
    its readings was run yet."""
    views = look_all(fleet, name)
    slot = fleet.slots.get(name, -1)
    if not views or slot < 0:
        return {}
    table = fleet.table
    with fleet.lane_of(slot).rows:
        if fleet.names[slot] != name:
            return {}
        rows = table.tracks(np.array([slot])).tolist()
        columns = [(table.history.read(slot, at), table.track.readings(row)) for at, row in enumerate(rows)]
    step, last = views[0].step, views[0].time
    targets = {view.target: _columns(*each, step, last, most) for view, each in zip(views, columns, strict=True)}
    levels = list(fleet.layout.outer)
    return {"stream": name_of(name), "model": fleet.model.manifest.name, "levels": levels, "targets": targets}


def _columns(
    shown: PastReadings, track: NDArray[np.float64], step: float | None, last: float, most: int
) -> dict[str, list[float | None]]:
    times, values = shown.times, shown.values
    band, anomalies = shown.band, shown.anomalies
    if step and len(track) > len(times):  # readings from before the daemon's start, one step apart
        old = last - step * np.arange(len(track) - 1, -1, -1)
        early = np.flatnonzero(old < (times[0] if len(times) else math.inf) - step / 2)
        nothing = np.full(len(early), np.nan)
        times, values = np.concatenate([old[early], times]), np.concatenate([track[early], values])
        band = np.concatenate([np.full((len(early), 3), np.nan), band])
        anomalies = np.concatenate([nothing, anomalies])
    kept = slice(max(0, len(times) - most), None)
    low, middle, high = rounded(band[kept]).T
    columns = {"times": times[kept], "values": values[kept], "low": low, "middle": middle, "high": high}
    return {name: _list(column) for name, column in columns.items()} | {"anomalies": _list(anomalies[kept])}


def _list(column: NDArray[np.float64]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in column.tolist()]
