"""The daemon's sensors: one fleet, what is on the disk of it, and who is told."""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.engine.model import ModelError
from streamer.sensors.columns import Batch, Told
from streamer.sensors.ingest import BusyError, Fleet, Receipt
from streamer.sensors.look import Sensor, look
from streamer.sensors.open import open_fleet
from streamer.sensors.prometheus import Exposed
from streamer.sensors.reply import told
from streamer.sensors.saver import Keeper
from streamer.sensors.worker import Ran
from streamer.store import StoreError
from streamer.store.journal import Journal

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["NoSensorsError", "Sensors"]

log = logging.getLogger(__name__)

#: Seconds between two looks at what is to be saved.
KEEP_SECONDS = 1.0
#: Seconds between readings that came together. A clock that goes back by less than ``SET_BACK`` stands still instead.
MOMENT, SET_BACK = 1e-6, 60.0


class NoSensorsError(LookupError):
    """No model for sensors is served."""

    def __init__(self) -> None:
        super().__init__("no model for sensors is served here: name forecast-universal in the setting models")


class Sensors:
    """Closed and empty until :meth:`load`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings, self.metrics = settings, metrics
        self.fleet: Fleet | None = None
        self.keeper: Keeper | None = None
        self._journal: Journal | None = None
        self._loaded = self._draining = False
        self._arrivals = Arrivals()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="sensors", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> None:
        """The model, and the sensors of the last run. Raises :class:`ModelError` and :class:`StoreError`."""
        if paths:
            self._load(paths)
        self._loaded = True

    def _load(self, paths: Sequence[Path]) -> None:
        if len(paths) > 1:
            names = ", ".join(str(path) for path in paths)
            raise ModelError(f"a daemon serves one model for sensors, not {names}: run another daemon for the other")
        settings = self.settings
        self._journal = Journal(settings.state_directory / "sensors.sqlite")
        fleet = open_fleet(
            paths[0],
            self.metrics,
            capacity=settings.max_sensors,
            lanes=settings.lanes,
            step=settings.sensor_step or None,
            gap=settings.max_gap_steps,
            most=settings.max_scored_steps,
            waiting=settings.max_waiting_readings,
            max_state_bytes=settings.max_state_bytes,
            journal=self._journal,
            limit=settings.max_batch,
        )
        self.keeper = Keeper(fleet, self._journal, self.metrics, settings.sensor_save_seconds)
        self.keeper.restore()
        self.metrics.sensors.set_function(lambda: len(fleet.slots))
        self.metrics.waiting_readings.set_function(lambda: fleet.waiting)
        self.metrics.unsaved_sensors.set_function(lambda: int((fleet.written > fleet.saved).sum()))
        self.metrics.registry.register(
            Exposed(fleet, settings.expose, settings.max_exposed_series, settings.max_top_anomalies)
        )
        fleet.start()
        self.fleet = fleet
        self._thread.start()

    def drain(self, timeout: float) -> int:
        """Take nothing more, run what was taken, save all of it; how many sensors."""
        self._draining = True
        if self.fleet is None or self.keeper is None:
            return 0
        if not self.fleet.drain(timeout):
            log.warning("readings are left to be run again", extra={"readings": self.fleet.waiting})
        self.keeper.save(whole=True)
        return len(self.fleet.slots)

    def close(self) -> bool:
        """False if a lane is stuck."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        ended = self.fleet is None or self.fleet.close(self.settings.stuck_seconds)
        if self._journal is not None:
            self._journal.close()
        return ended

    def stuck(self) -> str | None:
        seconds = self.settings.stuck_seconds
        if self.fleet is not None and self.fleet.stuck(seconds):
            return f"sensors have work that took more than {seconds:g} s"
        return None

    # -- in ------------------------------------------------------------------------------------------------------------

    async def take(self, batch: Batch, way: str) -> Receipt:
        """Returns when the readings are on the disk. Raises :class:`BusyError`, :class:`StoreError` or
        :class:`NoSensorsError`: nothing was taken."""
        receipt, _ = await self._write(batch, way, tell=False)
        return receipt

    async def ask(self, batch: Batch, way: str) -> tuple[Receipt, Told]:
        """The same, and what is said after each reading, once all of them were run."""
        receipt, said = await self._write(batch, way, tell=True)
        assert said is not None
        return receipt, said

    async def _write(self, batch: Batch, way: str, *, tell: bool) -> tuple[Receipt, Told | None]:
        count = len(batch)
        try:
            fleet = self._there()
            if self._draining:
                raise BusyError("the daemon is going down")
            writing = fleet.write(self._arrivals(batch), tell=tell)
            receipt = await asyncio.wrap_future(writing.safe)
        except BusyError:
            self.metrics.refused_readings.labels("busy").inc(count)
            raise
        except StoreError:
            self.metrics.refused_readings.labels("store").inc(count)
            self.metrics.store_errors.labels("journal").inc()
            raise
        self.metrics.readings.labels(way).inc(receipt.taken)
        if receipt.refused:
            self.metrics.refused_readings.labels("capacity").inc(receipt.refused)
        if writing.told is None:
            return receipt, None
        return receipt, await asyncio.wrap_future(writing.told)

    # -- out -----------------------------------------------------------------------------------------------------------

    def look(self, name: str) -> Sensor | None:
        """Raises, as the next two do, :class:`BusyError` and :class:`NoSensorsError`."""
        fleet = self._there()
        found = look(fleet, name)
        if found is None and name in fleet.slots:
            raise BusyError("the readings of this sensor are on the disk and wait to be run")
        return found

    def names(self, pattern: str = "*") -> list[str]:
        names = sorted(self._there().slots.copy())
        return names if pattern == "*" else fnmatch.filter(names, pattern)

    async def forget(self, name: str) -> bool:
        return await asyncio.wrap_future(self._there().forget(name))

    def _there(self) -> Fleet:
        """What comes while the daemon starts is to come again: "not found" would have a Prometheus drop it."""
        if not self._loaded:
            raise BusyError("the daemon is starting")
        if self.fleet is None:
            raise NoSensorsError
        return self.fleet

    def said(self, ran: Ran) -> Told:
        """What a watcher was given, with names."""
        assert self.fleet is not None
        return told([self.fleet.names[slot] for slot in ran.slots.tolist()], [ran], self.fleet)

    def describe(self) -> list[dict[str, Any]]:
        """JSON-ready, like the other models."""
        fleet = self.fleet
        if fleet is None:
            return []
        manifest = fleet.model.manifest
        return [
            {
                "name": manifest.name,
                "version": manifest.version,
                "task": manifest.task,
                "licence": manifest.licence,
                "horizon": fleet.horizon,
                "quantiles": fleet.levels,
                "capacity": fleet.capacity,
                "streams": len(fleet.slots),
                "max_batch": fleet.room.limit,
                "digest": fleet.model.digest,
            }
        ]

    # -- the keeper ----------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        while not self._stop.wait(KEEP_SECONDS):
            try:
                if self.keeper is not None:
                    self.keeper.save()
                self._forget_silent()
            except Exception:  # the next round may go better
                log.exception("the keeper of sensors failed")

    def _forget_silent(self) -> None:
        keep, fleet = self.settings.sensor_keep_seconds, self.fleet
        if not keep or fleet is None:
            return
        arrived = fleet.room.latest.arrived
        silent = np.flatnonzero((arrived > 0) & (arrived < time.time() - keep))
        for name in [fleet.names[slot] for slot in silent.tolist()]:
            if name and fleet.forget(name).result(self.settings.stuck_seconds):
                log.info("a sensor is forgotten, it was silent for too long", extra={"stream": name})
                self.metrics.evictions.labels("silent").inc()


class Arrivals:
    """Readings without a time came now. Those of one stream that came together came one after another, else they would
    be duplicates. Of the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0.0

    def __call__(self, batch: Batch) -> Batch:
        untimed = np.flatnonzero(np.isnan(batch.times))
        if not len(untimed):
            return batch
        now = self._clock()
        if now > self._last - SET_BACK:
            now = max(now, self._last + MOMENT)
        seen: dict[str, int] = {}
        times = batch.times.copy()
        for row in untimed.tolist():
            name = batch.names[row]
            turn = seen[name] = seen.get(name, -1) + 1
            times[row] = now + turn * MOMENT
        self._last = now + max(seen.values()) * MOMENT
        return Batch(batch.names, times, batch.values)
