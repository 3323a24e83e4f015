"""New versions of forecasters' files, while the daemon runs: sensors go over where they are."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamer.engine.model import Model, ModelError
from streamer.engine.trust import model_keys
from streamer.engine.versions import check_promises, reload_file
from streamer.sensors.ingest import Fleet
from streamer.sensors.open import load_forecaster

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors

__all__ = ["SensorVersions"]


class SensorVersions:
    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors
        self._one = threading.Lock()

    def reload(self) -> dict[str, dict[str, Any]]:
        """By model, as :func:`streamer.engine.versions.reload_file`. A model that waits for the disk is not looked at:
        its file is read again when it is opened by a restart."""
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
        fleet.renew(loaded.model, loaded.task)
        return loaded.model
