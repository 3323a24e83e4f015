"""Forecasts on the metrics page: a bounded number of series, and the number of streams that did not fit."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamer.names import SEPARATOR, name_of
from streamer.sensors.digits import rounded
from streamer.sensors.ingest import Fleet
from streamer.sensors.layout import RowLayout
from streamer.sensors.look import SensorView, look_all
from streamer.sensors.owners import VIEWER, visible
from streamer.sensors.timeline import Timelines

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["SensorCollector", "show"]

SCORES = {
    "mae": "mean absolute error of the last 1000 forecasts",
    "mase": "mean absolute error over that of the better naive forecast, last 1000 forecasts",
    "coverage": "share of readings inside the outer quantiles, last 1000 forecasts",
}
BANDS = ("1", "all")
#: A stream of a fleet, by the fleet's number.
_Stream = tuple[int, str]


def show(metrics: Metrics, fleets: Sequence[Fleet], settings: Settings) -> None:
    """Show the fleets, also those that are added later, on the metrics page."""
    metrics.sensors.set_function(lambda: sum(len(fleet.slots) for fleet in fleets))
    metrics.waiting_readings.set_function(lambda: sum(fleet.waiting for fleet in fleets))
    metrics.oldest_reading.set_function(lambda: max((fleet.waits() for fleet in fleets), default=0.0))
    metrics.reading_wait.set_function(lambda: max((fleet.behind() for fleet in fleets), default=0.0))
    metrics.unsaved_sensors.set_function(lambda: sum(int((fleet.written > fleet.saved).sum()) for fleet in fleets))
    patterns, series, top = settings.metrics_sensors, settings.max_sensor_series, settings.max_top_anomalies
    metrics.registry.register(SensorCollector(fleets, patterns, series, top))


class SensorCollector(Collector):
    """``patterns``: of names, in the order in which they get series. ``most``: series of them. ``top``: that many
    sensors with the least probable last readings, besides. A target of a plant is the stream ``plant.target`` here."""

    def __init__(self, fleets: Sequence[Fleet], patterns: Sequence[str], most: int, top: int) -> None:
        self._fleets, self._patterns, self._most, self._top = fleets, patterns, most, top
        self._shown: list[_Stream] = []
        self._known: list[int] | None = None  # versions of the directories that these were chosen from
        self._wanted = 0

    def collect(self) -> Iterator[Metric]:
        streams = self._choose()
        page = Page()
        for number, name in filter(lambda stream: visible(stream[1]), streams):
            for sensor in look_all(self._fleets[number], name):
                page.add(sensor, self._fleets[number].layout)
        yield from page.families()
        yield self._least_probable()
        yield _gauge("streamer_sensor_series", "series of sensors on this page", page.series)
        yield _gauge("streamer_sensor_series_limit", "series of sensors on this page, at most", self._most)
        left_out = self._wanted - len(streams)
        yield _gauge("streamer_sensors_left_out", "sensors that are to be on this page, and do not fit", left_out)
        yield from self._counts()

    def _choose(self) -> list[_Stream]:
        """Choose streams for the page. The choice changes only when streams come or go, so that series do not
        flicker."""
        now = [fleet.directory.version for fleet in self._fleets]
        if now != self._known:
            # in the order in which they were opened
            first = [(number, name) for number, fleet in enumerate(self._fleets) for name in fleet.slots.copy()]
            found: dict[_Stream, None] = {}
            for pattern in self._patterns:
                found |= dict.fromkeys(s for s in first if pattern == "*" or fnmatch.fnmatch(name_of(s[1]), pattern))
            self._known, self._wanted, self._shown = now, len(found), []
            left = self._most
            for stream in found:
                left -= _series(self._fleets[stream[0]].layout)
                if left < 0:
                    break
                self._shown.append(stream)
        return self._shown

    def _least_probable(self) -> Metric:
        family = GaugeMetricFamily(
            "streamer_anomaly_top", "probability of the last reading, of the least probable ones", labels=("stream",)
        )
        found: list[tuple[float, str]] = []
        for fleet in self._fleets if self._top else ():
            latest, targets = fleet.table.latest, fleet.layout.targets or ("",)
            anomaly = latest.anomaly.ravel()
            there = np.flatnonzero(latest.begun.ravel() & ~np.isnan(latest.value.ravel()))
            if VIEWER.get() is not None:
                there = there[[visible(fleet.names[row // len(targets)]) for row in there.tolist()]]
            for row in there[np.argsort(anomaly[there], kind="stable")][: self._top].tolist():
                if name := _label(fleet.names[row // len(targets)]):
                    target = targets[row % len(targets)]
                    found.append((float(anomaly[row]), f"{name}.{target}" if target else name))
        for value, name in sorted(found)[: self._top]:
            family.add_metric((name,), value)
        return family

    def _counts(self) -> Iterator[Metric]:
        tables = [fleet.table for fleet in self._fleets]
        what = CounterMetricFamily(
            "streamer_clock_events",
            "what the times of readings were forgiven: steps without a reading, duplicates, late readings, gaps longer"
            " than is filled, clocks set back, changes of a step",
            labels=("what",),
        )
        for name in Timelines.COUNTS:
            count = sum(int(table.timelines.counts[name].sum()) + table.gone[name] for table in tables)
            what.add_metric((name,), count)
        yield what
        run = CounterMetricFamily("streamer_readings_run", "readings that were run")
        run.add_metric((), sum(int(table.latest.readings.sum()) + table.gone["readings"] for table in tables))
        yield run


class Page:
    """The series of streams. A stream without forecasts or scores has fewer series than :func:`_series`."""

    def __init__(self) -> None:
        self._forecast = GaugeMetricFamily(
            "streamer_forecast",
            "what a sensor will read so many steps ahead, by level of the quantile",
            labels=("stream", "ahead", "level"),
        )
        self._reading = GaugeMetricFamily("streamer_forecast_reading", "a sensor's last reading", labels=("stream",))
        self._anomaly = GaugeMetricFamily(
            "streamer_forecast_anomaly",
            "probability of a reading at least as far from what was expected as the last one",
            labels=("stream",),
        )
        self._drift = GaugeMetricFamily(
            "streamer_forecast_drift", "recent errors divided by usual ones; 1: as usual", labels=("stream",)
        )
        self._scores = {
            name: GaugeMetricFamily(f"streamer_forecast_{name}", text, labels=("stream", "ahead"))
            for name, text in SCORES.items()
        }

    def families(self) -> list[GaugeMetricFamily]:
        return [self._forecast, self._reading, self._anomaly, self._drift, *self._scores.values()]

    @property
    def series(self) -> int:
        return sum(len(family.samples) for family in self.families())

    def add(self, sensor: SensorView, layout: RowLayout) -> None:
        name = _label(sensor.label)
        self._reading.add_metric((name,), float("nan") if sensor.value is None else sensor.value)
        if sensor.quantiles is not None:
            curves = rounded(sensor.quantiles)
            for ahead in _ahead(layout):
                for level in _levels(layout):
                    labels = (name, str(ahead), sensor.levels[level])
                    self._forecast.add_metric(labels, float(curves[ahead - 1, level]))
            self._anomaly.add_metric((name,), sensor.anomaly or 0.0)
            self._drift.add_metric((name,), sensor.drift or 0.0)
        for band in BANDS:
            for kind, family in self._scores.items():
                value = getattr(sensor.late[band], kind)
                if value is not None:
                    family.add_metric((name, band), value)


def _label(name: str) -> str:
    """The label of a stream; for another owner's stream with the owner's name in front."""
    return name_of(name) if VIEWER.get() is not None else name.replace(SEPARATOR, "/")


def _ahead(layout: RowLayout) -> list[int]:
    return sorted({1, layout.horizon})


def _levels(layout: RowLayout) -> list[int]:
    return [layout.levels.index(level) for level in sorted(set(layout.outer), key=float)]


def _series(layout: RowLayout) -> int:
    """Number of series of one stream: forecasts, reading, anomaly, drift and scores of each target."""
    return len(layout.chosen) * (len(_ahead(layout)) * len(_levels(layout)) + 3 + len(SCORES) * len(BANDS))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)
