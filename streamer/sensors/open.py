"""Makes a fleet, ready to start, from a model file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from streamer.contract.manifest import MAX_MODEL_BYTES
from streamer.contract.signature import PublicKey
from streamer.engine.arena import Arena, ArenaError
from streamer.engine.model import Model, ModelError
from streamer.engine.trust import model_keys
from streamer.metrics import Metrics
from streamer.sensors.ingest import Fleet
from streamer.sensors.layout import RowLayout
from streamer.sensors.scores import MOST
from streamer.tasks import TaskError, create
from streamer.tasks.forecast import Forecaster

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["INPUT", "Loaded", "load_forecaster", "load_forecasters", "make_fleet", "open_fleet"]

#: One reading of one sensor: its value, whether it is there, time of day, time of week; float32 or float64.
INPUT = (1, 4)
#: Streams in a batch. Not tuned: a forecaster has some hundred small operators, whose cost a larger batch shares, but
#: the states of a batch larger than this do not fit into the cache.
BATCH = 64


class Loaded(NamedTuple):
    """A forecaster's file."""

    model: Model
    task: Forecaster
    layout: RowLayout

    def bytes_of_sensor(self, most: int) -> int:
        """Bytes of memory for one sensor, at least; ``most``: steps ahead that are scored."""
        horizon, levels = self.layout.horizon, len(self.layout.levels)
        forecasts = horizon * (min(horizon, most) * 4 * (levels + 1) + 8 * levels)
        return self.model.manifest.state_bytes + max(1, len(self.layout.chosen)) * forecasts


def load_forecaster(path: Path, max_bytes: int = MAX_MODEL_BYTES, keys: Sequence[PublicKey] = ()) -> Loaded:
    """As :meth:`Model.load`. Raises :class:`ModelError` for a model that does not forecast readings or rows."""
    model = Model.load(path, max_bytes=max_bytes, keys=keys)
    manifest, spec = model.manifest, model.manifest.input
    if manifest.task != "forecast":
        raise ModelError(f"{path} is for the task {manifest.task}, it does not forecast: streamer models shows")
    try:
        task = cast(Forecaster, create(manifest))
    except TaskError as error:
        raise ModelError(f"{path}: {error}") from error
    if len(manifest.inputs) > 1:
        raise ModelError(f"{path}: has {len(manifest.inputs)} stream inputs, a forecaster of sensors takes one")
    layout = RowLayout.of(task)
    if not layout.variables and (spec.chunk_shape != INPUT or spec.dtype not in ("float32", "float64")):
        raise ModelError(f"{path}: takes {spec.chunk_shape}, not one reading with its clock {INPUT}")
    return Loaded(model, task, layout)


def load_forecasters(paths: Sequence[Path], settings: Settings) -> list[Loaded]:
    """The forecasters that one daemon serves together. Raises :class:`ModelError`."""
    found: list[Loaded] = []
    for path in paths:
        loaded = load_forecaster(path, settings.max_model_bytes, model_keys(settings, path))
        name, variables = loaded.model.manifest.name, loaded.layout.variables
        for other in found:
            if other.model.manifest.name == name:
                raise ModelError(f"{path}: another model for sensors is named {name!r}, too")
            if not other.layout.variables and not variables:
                names = f"{other.model.path}, {path}"
                raise ModelError(f"a daemon serves one model for sensors of one value, not {names}: run another daemon")
        found.append(loaded)
    return found


def make_fleet(
    loaded: Loaded,
    metrics: Metrics,
    *,
    capacity: int,
    lanes: int = 0,
    limit: int = 0,
    **options: Any,
) -> Fleet:
    """``lanes`` 0: one per CPU. ``limit`` 0: ``BATCH``. The rest as :class:`Fleet`. Raises :class:`ModelError`."""
    model = loaded.model
    table = metrics.model(model.manifest.name)
    options |= {"lanes": lanes or len(os.sched_getaffinity(0)), "limit": limit or BATCH}
    try:
        bound = options.get("max_state_bytes", 2**31)
        Arena.check(loaded.bytes_of_sensor(options.get("most", MOST)), capacity, bound)
        return Fleet(model, loaded.task, table, capacity=capacity, **options)
    except ArenaError as error:
        raise ModelError(f"{model.path}: {error} (settings max_sensors and max_state_bytes)") from error


def open_fleet(path: Path, metrics: Metrics, **options: Any) -> Fleet:
    """As :func:`load_forecaster` and :func:`make_fleet`."""
    return make_fleet(load_forecaster(path), metrics, **options)
