"""New versions of forecasters' files, while the daemon runs: sensors change to them with their states."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.model import Model, ModelError
from streamer.engine.trust import model_keys
from streamer.engine.versions import check_promises, reload_file
from streamer.sensors.ingest import Fleet
from streamer.sensors.layout import RowLayout, state_layout
from streamer.sensors.open import load_forecaster
from streamer.sensors.runner import Runner
from streamer.tasks.forecast import Forecaster

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors

__all__ = ["SensorVersions", "renew"]


class SensorVersions:
    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._one = threading.Lock()

    def reload(self) -> dict[str, dict[str, Any]]:
        """Outcomes by model, as :func:`streamer.engine.versions.reload_file`. A model that waits for the disk is
        skipped: a restart reads its file."""
        with self._one:
            return {
                name: reload_file(fleet.model, self._sensors.metrics, partial(self._take, fleet))
                for name, fleet in self._sensors.fleets.items()
            }

    def _take(self, fleet: Fleet, path: Path) -> Model:
        settings, name = self._sensors.settings, fleet.model.manifest.name
        check_promises(path)
        loaded = load_forecaster(path, settings.max_model_bytes, model_keys(settings, path))
        if (now := loaded.model.manifest.name) != name:
            raise ModelError(f"{path} holds a model named {now!r} now: a restart serves it")
        renew(fleet, loaded.model, loaded.task)
        return loaded.model


def renew(fleet: Fleet, model: Model, task: Forecaster) -> None:
    """Change every stream to a new version of the model between two of its steps. Raises :class:`ModelError` if the
    layout differs; then nothing has changed."""
    table = fleet.table
    if state_layout(model.manifest, RowLayout.of(task)) != table.state_layout:
        text = "a sensor's state has another layout than before: a restart serves it, and sensors begin again"
        raise ModelError(f"{model.path}: {text}")
    limit = min(table.limit, model.manifest.max_batch)
    runners = [Runner(model, table.arena, table.metrics, limit) for _ in fleet.lanes]
    for lane, runner in zip(fleet.lanes, runners, strict=True):
        with lane.lock:
            table.model, table.limit = model, limit
            lane.runner = runner
