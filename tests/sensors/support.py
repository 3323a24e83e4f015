"""Fleets of the shipped model, and readings for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.columns import Forecasts, ReadingBatch
from streamer.sensors.ingest import Fleet
from streamer.sensors.open import open_fleet

HOUR = 3600.0


def fleet(start: bool = True, **options: Any) -> Fleet:
    options = {"capacity": 3, "step": HOUR, "gap": 5, "lanes": 2, **options}
    made = open_fleet(resolve("forecast-online"), Metrics(CollectorRegistry()), **options)
    if start:
        made.start()
    return made


def batch(readings: list[tuple[str, float, float | None]]) -> ReadingBatch:
    """(stream, hour, value)"""
    names, hours, values = zip(*readings, strict=True)
    return ReadingBatch.made(names, [hour * HOUR for hour in hours], list(values))


def feed(fleet: Fleet, readings: list[tuple[str, float, float | None]]) -> Forecasts:
    writing = fleet.write(batch(readings), answer=True)
    assert writing.forecasts is not None
    return writing.forecasts.result(60)


def lives(count: int, hours: int, seed: int = 0) -> list[tuple[str, float, float | None]]:
    """Streams ``s0``, ``s1``, ... with a day in them, some readings missing, some hours left out."""
    rng = np.random.default_rng(seed)
    found: list[tuple[str, float, float | None]] = []
    for hour in range(hours):
        for stream in range(count):
            if rng.random() < 0.9:
                value = 10 * stream + np.sin(hour * np.pi / 12) + 0.1 * rng.normal()
                found.append((f"s{stream}", float(hour), None if rng.random() < 0.05 else float(value)))
    return found
