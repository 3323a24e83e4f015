"""Forecasts on the metrics page: as many series as are allowed, and how many that left out."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from streamer.sensors.ingest import Fleet
from streamer.sensors.look import Sensor, look
from streamer.sensors.timeline import Clocks

__all__ = ["Exposed"]

SCORES = ("mae", "mase", "coverage")


class Exposed(Collector):
    """``patterns``: of names, in the order in which they get room. ``most``: series of them. ``top``: that many sensors
    with the least probable last readings, besides."""

    def __init__(self, fleet: Fleet, patterns: Sequence[str], most: int, top: int) -> None:
        self._fleet, self._patterns, self._most, self._top = fleet, patterns, most, top
        self._ahead = sorted({1, fleet.horizon})
        self._levels = [fleet.levels.index(level) for level in sorted(set(fleet.outer), key=float)]
        self._bands = ("1", "all")
        #: Series of one sensor: forecasts, reading, anomaly, drift, scores.
        self.each = len(self._ahead) * len(self._levels) + 3 + len(SCORES) * len(self._bands)
        self._shown: list[str] = []
        self._known: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()

    def collect(self) -> Iterator[Metric]:
        fleet = self._fleet
        names = self._choose()
        forecast = GaugeMetricFamily(
            "streamer_forecast",
            "what a sensor will read so many steps ahead, by level of the quantile",
            labels=("stream", "ahead", "level"),
        )
        reading = GaugeMetricFamily("streamer_forecast_reading", "a sensor's last reading", labels=("stream",))
        anomaly = GaugeMetricFamily(
            "streamer_forecast_anomaly",
            "probability of a reading at least as far from what was expected as the last one",
            labels=("stream",),
        )
        drift = GaugeMetricFamily(
            "streamer_forecast_drift", "errors of late over usual ones, 1: as ever", labels=("stream",)
        )
        scores = {
            name: GaugeMetricFamily(f"streamer_forecast_{name}", text, labels=("stream", "ahead"))
            for name, text in zip(
                SCORES,
                (
                    "mean absolute error of the last 1000 forecasts",
                    "mean absolute error over that of the better naive forecast, last 1000 forecasts",
                    "share of readings inside the outer quantiles, last 1000 forecasts",
                ),
                strict=True,
            )
        }
        series = 0
        for name in names:
            if (sensor := look(fleet, name)) is not None:
                series += self._add(sensor, forecast, reading, anomaly, drift, scores)
        yield from (forecast, reading, anomaly, drift, *scores.values())
        yield self._least_probable()
        yield _gauge("streamer_exposed_series", "series of sensors on this page", series)
        yield _gauge("streamer_exposed_series_limit", "series of sensors on this page, at most", self._most)
        left_out = len(self._wanted) - len(names)
        yield _gauge("streamer_exposed_left_out", "sensors that are to be on this page, and do not fit", left_out)
        yield from self._counts()

    def _add(
        self,
        sensor: Sensor,
        forecast: GaugeMetricFamily,
        reading: GaugeMetricFamily,
        anomaly: GaugeMetricFamily,
        drift: GaugeMetricFamily,
        scores: dict[str, GaugeMetricFamily],
    ) -> int:
        """How many series it is; less than ``each`` as long as there is nothing to tell."""
        name, before = sensor.name, len(forecast.samples) + len(reading.samples) + len(anomaly.samples)
        before += len(drift.samples) + sum(len(family.samples) for family in scores.values())
        reading.add_metric((name,), float("nan") if sensor.value is None else sensor.value)
        if sensor.quantiles is not None:
            for ahead in self._ahead:
                for level in self._levels:
                    labels = (name, str(ahead), sensor.levels[level])
                    forecast.add_metric(labels, float(sensor.quantiles[ahead - 1, level]))
            anomaly.add_metric((name,), sensor.anomaly or 0.0)
            drift.add_metric((name,), sensor.drift or 0.0)
        for band in self._bands:
            for kind, family in scores.items():
                value = getattr(sensor.late[band], kind)
                if value is not None:
                    family.add_metric((name, band), value)
        after = len(forecast.samples) + len(reading.samples) + len(anomaly.samples)
        return after + len(drift.samples) + sum(len(family.samples) for family in scores.values()) - before

    def _choose(self) -> list[str]:
        """Chosen anew only when sensors come or go: a page whose series flicker is no use."""
        now = frozenset(self._fleet.slots.copy())
        if now != self._known:
            first = list(self._fleet.slots)  # in the order in which they were opened
            found: dict[str, None] = {}
            for pattern in self._patterns:
                found |= dict.fromkeys(fnmatch.filter(first, pattern) if pattern != "*" else first)
            self._known = now
            self._wanted = frozenset(found)
            self._shown = list(found)[: self._most // self.each]
        return self._shown

    def _least_probable(self) -> Metric:
        family = GaugeMetricFamily(
            "streamer_anomaly_top", "probability of the last reading, of the least probable ones", labels=("stream",)
        )
        latest = self._fleet.room.latest
        there = np.flatnonzero(latest.begun & ~np.isnan(latest.value))
        for slot in there[np.argsort(latest.anomaly[there], kind="stable")][: self._top].tolist():
            if name := self._fleet.names[slot]:
                family.add_metric((name,), float(latest.anomaly[slot]))
        return family

    def _counts(self) -> Iterator[Metric]:
        room = self._fleet.room
        what = CounterMetricFamily(
            "streamer_clock_events",
            "what the times of readings were forgiven: steps without a reading, duplicates, late readings, gaps longer"
            " than is filled, clocks set back, changes of a step",
            labels=("what",),
        )
        for name in Clocks.COUNTS:
            what.add_metric((name,), int(room.clocks.counts[name].sum()) + room.gone[name])
        yield what
        run = CounterMetricFamily("streamer_readings_run", "readings that were run")
        run.add_metric((), int(room.latest.readings.sum()) + room.gone["readings"])
        yield run


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)
