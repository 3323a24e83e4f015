"""From a model file to a fleet that is ready to start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from streamer.engine.arena import ArenaError
from streamer.engine.model import Model, ModelError
from streamer.metrics import Metrics
from streamer.sensors.ingest import Fleet
from streamer.tasks import TaskError, create
from streamer.tasks.forecast import Forecaster

__all__ = ["INPUT", "open_fleet"]

#: One reading: its value, whether it is there, time of day, time of week.
INPUT = ("float32", (1, 4))
#: Streams in a batch. Not tuned: from here on a batch's states leave the cache, and a larger one gains no more.
BATCH = 32


def open_fleet(path: Path, metrics: Metrics, *, capacity: int, lanes: int = 0, limit: int = 0, **options: Any) -> Fleet:
    """``lanes`` 0: one per CPU. ``limit`` 0: ``BATCH``. The rest as :class:`Fleet`. Raises :class:`ModelError`."""
    model = Model.load(path)
    manifest = model.manifest
    if manifest.task != "forecast":
        raise ModelError(f"{path} is for the task {manifest.task}, it does not forecast: streamer models shows")
    if (manifest.input.dtype, manifest.input.chunk_shape) != INPUT:
        raise ModelError(f"{path}: takes {manifest.input.chunk_shape}, not one reading with its clock {INPUT[1]}")
    lanes = lanes or len(os.sched_getaffinity(0))
    try:
        task = cast(Forecaster, create(manifest))
        return Fleet(
            model, task, metrics.model(manifest.name), capacity=capacity, lanes=lanes, limit=limit or BATCH, **options
        )
    except TaskError as error:
        raise ModelError(f"{path}: {error}") from error
    except ArenaError as error:
        raise ModelError(f"{path}: {error} (capacity)") from error
