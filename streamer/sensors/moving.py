"""Export, import and move of sensors: a state with its clock and scores, once all its readings are run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from streamer.sensors.ingest import Fleet
from streamer.sensors.saver import from_bytes, to_bytes
from streamer.sensors.writes import BusyError

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors

__all__ = ["SensorMover", "SensorStateError"]

log = logging.getLogger(__name__)

MAGIC = b"STSE"
#: Seconds for readings that wait to be run before their sensors move, and for the disk with one sensor.
RUN_OUT, DISK = 600.0, 60.0


class SensorStateError(ValueError):
    """The state is damaged, of another model, or of a sensor that has readings here."""


class SensorMover:
    """All methods wait for the disk, and raise as :class:`streamer.sensors.host.Sensors` does."""

    def __init__(self, sensors: Sensors) -> None:
        self._sensors = sensors

    def export(self, name: str, model: str | None = None) -> bytes | None:
        """The bytes of the sensor, which continues here; ``None``: there is none. Raises :class:`BusyError` if readings
        of it wait."""
        fleet = self._sensors.owner(name, model)
        return None if fleet is None else self._export(fleet, name)

    def _export(self, fleet: Fleet, name: str) -> bytes | None:
        slot = fleet.slots.get(name, -1)
        if slot < 0:
            return None
        with fleet.lane_of(slot).lock:
            if fleet.names[slot] != name:
                return None
            if fleet.table.applied[slot] != fleet.written[slot]:
                raise BusyError(f"readings of sensor {name[:200]!r} wait to be run")
            parts = fleet.table.read(slot)
        head = {"sensor": name, "model": fleet.model.manifest.name, "digest": fleet.model.digest}
        return MAGIC + json.dumps(head).encode() + b"\n" + to_bytes(parts, fleet.table.state_layout)

    def bring(self, name: str, model: str | None, data: bytes) -> None:
        """Import a sensor of another daemon, durably. Raises :class:`SensorStateError`."""
        try:
            line, _, body = data.removeprefix(MAGIC).partition(b"\n")
            head = json.loads(line)
            if not data.startswith(MAGIC) or head["sensor"] != name:
                raise ValueError("these are not the bytes of that sensor")
            parts = from_bytes(body)
        except (ValueError, KeyError, TypeError) as error:
            raise SensorStateError(f"the sensor can't be read: {error}") from error
        model = model or str(head.get("model"))
        if (fleet := self._sensors.fleets.get(model)) is None:
            raise SensorStateError(f"no model {model[:100]!r} for sensors is served here")
        if head.get("digest") != fleet.model.digest:
            text = f"it was made by another file of the model ({str(head.get('digest'))[:12]})"
            raise SensorStateError(f"{text}, here is {fleet.model.digest[:12]}: serve the same file here")
        if (problem := fleet.bring(name, parts, body).result(DISK)) is not None:
            raise SensorStateError(problem)

    def stay(self) -> None:
        """Accept readings here again."""
        self._sensors.elsewhere = self._sensors.moving_to = None

    def drain_to(self, url: str, send: Callable[[str, str, bytes], None]) -> dict[str, Any]:
        """Move every sensor to ``url``. Returns ``moved``, their number, and ``left``, the reasons by name. Readings
        are refused meanwhile, and redirected once no sensor is left; while some are left they are still refused, until
        a repeated call moves these."""
        fleets = self._sensors.fleets
        if not fleets:
            return {"moved": 0, "left": {}}
        moved, left = 0, dict[str, str]()
        self._sensors.moving_to, self._sensors.elsewhere = url, None
        for fleet in fleets.values():
            fleet.drain(RUN_OUT)
            for name in list(fleet.slots):
                try:
                    data = self._export(fleet, name)
                    if data is None:
                        continue
                    send(name, fleet.model.manifest.name, data)
                    fleet.forget(name, moved=True).result(DISK)
                    moved += 1
                except Exception as error:
                    left[name] = str(error) or type(error).__name__
                    log.error("a sensor could not be moved", extra={"stream": name, "error": left[name]})
        if not left:
            self._sensors.elsewhere = url
        elif not moved:
            self._sensors.moving_to = None
        return {"moved": moved, "left": left}
