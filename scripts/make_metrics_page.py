"""Writes docs/metrics.md from the code: ``python scripts/make_metrics_page.py``. A test compares the two."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from streamer.metrics import Metrics
from streamer.sensors.prometheus import SensorCollector

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

`GET /metrics`, Prometheus text, or OpenMetrics if the client accepts it. On the page a counter has the suffix `_total`,
a histogram `_bucket`, `_sum` and `_count`, an info `_info`. Their use in operation, alerts and dashboards:
[operations](operations.md#metrics).

This page is generated from the code (`scripts/make_metrics_page.py`).

## The daemon's

| name | type | labels | |
|---|---|---|---|
"""
SENSORS = """
## Of sensors

On the same page, computed at each request. `metrics_sensors`, `max_sensor_series` and `max_top_anomalies` limit the
series with the label `stream`, which is `plant.target` for a target of a plant. `ahead` is a number of steps (`1`, the
horizon), for scores `1` or `all`; `level` is that of a quantile.

| name | type | labels | |
|---|---|---|---|
"""


def page() -> str:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    return HEAD + _rows(registry, metrics) + SENSORS + "".join(_row(f, _labels_of(f)) for f in _sensors())


def _rows(registry: CollectorRegistry, metrics: Metrics) -> str:
    by_name = {}
    for collector in vars(metrics).values():
        if hasattr(collector, "describe"):
            (family,) = collector.describe()
            by_name[family.name] = getattr(collector, "_labelnames", ()) or _labels_of(family)
    return "".join(_row(family, by_name[family.name]) for family in registry.collect())


def _sensors() -> list[Metric]:
    return list(SensorCollector([], [], 0, 0).collect())


def _labels_of(family: Metric) -> tuple[str, ...]:
    return tuple(getattr(family, "_labelnames", ()))


def _row(family: Metric, labels: tuple[str, ...]) -> str:
    shown = ", ".join(f"`{label}`" for label in labels)
    return f"| `{family.name}` | {family.type} | {shown} | {family.documentation} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
