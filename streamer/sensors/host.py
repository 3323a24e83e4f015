"""The daemon's sensors: a fleet for each model, its journal, and its watchers.

One model may be for single sensors; any number of others take rows of named variables. Readings go to the named model,
else to the one whose variables are all among the columns, else to the one for single sensors.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.engine.model import ModelError
from streamer.sensors.arrivals import Arrivals
from streamer.sensors.choice import NoSensorsError, fleet_of_columns, fleet_of_name
from streamer.sensors.columns import Forecasts, ReadingBatch, StepResult
from streamer.sensors.commit import Receipt
from streamer.sensors.ingest import Fleet
from streamer.sensors.layout import RowLayout
from streamer.sensors.look import SensorView, describe, look_all
from streamer.sensors.open import Loaded, load_forecasters, make_fleet
from streamer.sensors.prometheus import show
from streamer.sensors.reply import gather
from streamer.sensors.saver import Saver
from streamer.sensors.writes import BusyError
from streamer.store import StoreError
from streamer.store.journal import Journal

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["ElsewhereError", "Sensors"]

log = logging.getLogger(__name__)

#: Protocols whose readings the daemon itself asks for again: without room they are not refused.
KEPT_BY_SENDER = frozenset({"mqtt", "websocket"})

#: Seconds between two checks for states to save.
SAVE_SECONDS = 1.0
#: Share of a drain's time in which readings are run; the rest is for saving.
RUNNING = 0.75


class ElsewhereError(BusyError):
    """All sensors have moved to the daemon at ``url``."""

    def __init__(self, url: str) -> None:
        super().__init__(f"the sensors are served at {url} from now on: send readings there")
        self.url = url


class Served(NamedTuple):
    fleet: Fleet
    saver: Saver


class Sensors:
    """Closed and empty until :meth:`load`. ``clock``: monotonic seconds, for how long a sensor has been silent.
    ``claim`` comes before a file of the state directory is opened, and raises :class:`StoreError`. A model whose
    journal can't be opened, as the disk is full or gone, waits for it: readings are refused, as during the start."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        claim: Callable[[], object] = lambda: None,
    ) -> None:
        self.settings, self.metrics, self._clock = settings, metrics, clock
        self._served: list[Served] = []
        self._journals: list[Journal] = []
        self._claim = claim
        self._late: list[Loaded] = []
        self._trouble: StoreError | ModelError | None = None
        self._watchers: list[Callable[[Fleet, StepResult], None]] = []
        self._forgotten_watchers: list[Callable[[Fleet, str], None]] = []
        #: By the name of the model.
        self.fleets: dict[str, Fleet] = {}
        self._loaded = self._draining = False
        #: The daemon that the sensors are on their way to, and the one that has all of them.
        self.moving_to: str | None = None
        self.elsewhere: str | None = None
        self._arrivals = Arrivals()
        self._no_values = _numbers(settings.missing)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._save_all, name="sensors", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def load(self, paths: Sequence[Path]) -> None:
        """The models, and the sensors of the last run. Raises :class:`ModelError` and :class:`StoreError`."""
        settings, fleets = self.settings, list[Fleet]()
        self._late = load_forecasters(paths, settings)
        if self._late:
            show(self.metrics, fleets, settings)
        self._fleets_shown = fleets
        for loaded in self._late.copy():
            self._open_in_time(loaded)
        if self._served or self._late:
            self._thread.start()
        self._loaded = True

    def _open_in_time(self, loaded: Loaded) -> None:
        """Serve the model from now on, or let it wait for the disk. At the start it raises errors that waiting can't
        cure."""
        try:
            fleet = self._open(loaded)
        except (StoreError, ModelError) as error:  # the latter: such as more sensors than fit
            if not self._loaded and not (isinstance(error, StoreError) and error.passing):
                raise
            if str(self._trouble) != str(error):
                log.error(f"{error}; readings are refused until they can be kept")
            self._trouble = error
            return
        self._late.remove(loaded)
        for watcher in self._watchers:
            fleet.watch(partial(watcher, fleet))
        fleet.forgotten_watchers += [partial(watcher, fleet) for watcher in self._forgotten_watchers]
        fleet.start()
        self._fleets_shown.append(fleet)
        self.fleets = {**self.fleets, fleet.model.manifest.name: fleet}

    def _open(self, loaded: Loaded) -> Fleet:
        settings, name, variables = self.settings, loaded.model.manifest.name, loaded.layout.variables
        file = f"sensors-{name}.sqlite" if variables else "sensors.sqlite"
        self._claim()
        journal = Journal(settings.state_directory / file, variables)
        try:
            fleet, saver = self._restored(loaded, journal)
        except BaseException:
            journal.close()
            raise
        self._journals.append(journal)
        self._served.append(Served(fleet, saver))
        if journal.loss is not None:
            self.metrics.damaged(file.removesuffix(".sqlite"), *journal.loss.counts())
        return fleet

    def _restored(self, loaded: Loaded, journal: Journal) -> tuple[Fleet, Saver]:
        settings = self.settings
        fleet = make_fleet(
            loaded,
            self.metrics,
            capacity=settings.max_sensors,
            lanes=settings.lanes,
            step=settings.sensor_step or None,
            gap=settings.max_gap_steps,
            earned=settings.gap_steps_per_reading,
            most=settings.max_scored_steps,
            shown=settings.max_shown_readings if settings.pages else 0,
            waiting=settings.max_waiting_readings,
            seconds=settings.max_waiting_seconds,
            max_state_bytes=settings.max_state_bytes,
            journal=journal,
            clock=self._clock,
            limit=settings.max_batch,
        )
        patience = settings.stuck_seconds
        saver = Saver(fleet, journal, self.metrics, settings.sensor_save_seconds, patience=patience)
        saver.restore()
        return fleet, saver

    def drain(self, timeout: float) -> int:
        """Refuse new readings, run the accepted ones, save all states; returns the number of saved sensors. Readings
        that are not run after ``RUNNING`` of the time stay in the journal, and so do those of sensors that are not
        saved by its end."""
        self._draining = True
        self._stop.set()  # the saving thread makes no further round: all states are saved here
        begin = time.monotonic()
        for fleet, saver in self._served:
            if not fleet.drain(max(0.0, begin + RUNNING * timeout - time.monotonic())):
                log.warning("readings are left to be run again", extra={"readings": fleet.waiting})
                fleet.close(
                    0.0
                )  # lanes stop after their current piece, so that the saved states do not change any more
                fleet.give_up()
            saver.save(whole=True, until=begin + timeout)
        return sum(len(served.fleet.slots) for served in self._served)

    def close(self) -> bool:
        """False if a lane is stuck."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        ended = [served.fleet.close(self.settings.stuck_seconds) for served in self._served]
        for journal in self._journals:
            journal.close()
        return all(ended)

    def stuck(self) -> str | None:
        seconds = self.settings.stuck_seconds
        for name, fleet in self.fleets.items():
            if fleet.stuck(seconds):
                return f"sensors of {name} have work that took more than {seconds:g} s"
        return None

    def waiting(self) -> str:
        """A text about readings that have waited for a second or more, for ``/readyz``; empty if there are none."""
        found = [fleet for fleet in self.fleets.values() if fleet.waits() > 1.0]
        return "".join(
            f"{fleet.waiting} readings of {fleet.model.manifest.name} wait, the oldest for {fleet.waits():.0f} s;"
            f" one that comes now {fleet.behind():.1f} s\n"
            for fleet in found
        )

    def disk_trouble(self) -> str | None:
        """Why readings can't be written; ``None`` if all is well."""
        return None if (trouble := self._trouble) is None else str(trouble)

    def layouts(self) -> dict[str, RowLayout]:
        """Layouts of all models by name, also of those that wait for the disk."""
        fleets = {name: fleet.layout for name, fleet in self.fleets.items()}
        return fleets | {loaded.model.manifest.name: loaded.layout for loaded in self._late.copy()}

    # -- in ------------------------------------------------------------------------------------------------------------

    def choose(self, model: str | None = None, columns: Collection[str] = ()) -> Fleet:
        """The fleet that readings of these ``columns`` belong to. Raises, as most methods do, :class:`BusyError`,
        :class:`NoSensorsError` and :class:`AmbiguousError`."""
        return fleet_of_columns(self.served(), model, columns)

    async def take(self, batch: ReadingBatch, way: str, fleet: Fleet | None = None) -> Receipt:
        """Returns when the readings are on the disk. Raises :class:`BusyError`, :class:`StoreError` or
        :class:`NoSensorsError`: nothing was taken. Without ``fleet``: that for single sensors."""
        receipt, _ = await self._write(batch, way, fleet)
        return receipt

    async def tell(
        self, batch: ReadingBatch, way: str, fleet: Fleet | None, seconds: float
    ) -> tuple[Receipt, Forecasts | None]:
        """As :meth:`take`, and also returns the readings that were left out or whose run failed. ``None``: they were
        not run within ``seconds``."""
        receipt, waiting = await self._write(batch, way, fleet, count=True)
        assert waiting is not None
        try:
            return receipt, await asyncio.wait_for(asyncio.shield(waiting), seconds)
        except (TimeoutError, BusyError):  # the latter: by this process
            return receipt, None

    async def ask(self, batch: ReadingBatch, way: str, fleet: Fleet | None = None) -> tuple[Receipt, Forecasts]:
        """As :meth:`take`, and also returns the forecasts after each reading, once all readings were run."""
        receipt, waiting = await self._write(batch, way, fleet, answer=True)
        assert waiting is not None
        return receipt, await waiting

    async def _write(
        self, batch: ReadingBatch, way: str, fleet: Fleet | None, *, answer: bool = False, count: bool = False
    ) -> tuple[Receipt, asyncio.Future[Forecasts] | None]:
        try:
            fleet = fleet or self.choose()
            if self._draining:
                raise BusyError("the daemon is going down")
            if self.elsewhere is not None:
                raise ElsewhereError(self.elsewhere)
            if self.moving_to is not None:
                raise BusyError(f"the sensors are on their way to {self.moving_to}")
            writing = fleet.write(self._arrivals(self._masked(batch)), answer=answer, count=count)
            receipt = await asyncio.wrap_future(writing.safe)
        except BusyError:
            if way not in KEPT_BY_SENDER:
                self.metrics.refused_readings.labels("busy").inc(len(batch))
            raise
        except StoreError:
            self.metrics.refused_readings.labels("store").inc(len(batch))
            self.metrics.store_errors.labels("journal").inc()
            raise
        self.metrics.readings.labels(way).inc(receipt.taken)
        for refusal in receipt.refusals:
            self.metrics.refused_readings.labels(refusal.reason).inc(refusal.count)
        if writing.forecasts is None:
            return receipt, None
        waiting = asyncio.wrap_future(writing.forecasts)
        waiting.add_done_callback(
            lambda done: done.cancelled() or done.exception()
        )  # the client may have stopped waiting
        return receipt, waiting

    def _masked(self, batch: ReadingBatch) -> ReadingBatch:
        """The batch with NaN for numbers that mean "no value" (the setting ``missing``)."""
        if not self._no_values.size:
            return batch
        values = np.where(np.isin(batch.values, self._no_values), np.nan, batch.values)
        return ReadingBatch(batch.names, batch.times, values, batch.stamped)

    # -- out -----------------------------------------------------------------------------------------------------------

    def look(self, name: str, model: str | None = None) -> list[SensorView]:
        """All targets of a stream; empty: there is no such stream."""
        fleet = self.owner(name, model)
        if fleet is None:
            return []
        found = look_all(fleet, name)
        if not found and name in fleet.slots:
            raise BusyError("the readings of this sensor are on the disk and wait to be run")
        return found

    def names(self, pattern: str = "*") -> list[str]:
        names = sorted({name for fleet in self.served().values() for name in fleet.slots.copy()})
        return names if pattern == "*" else fnmatch.filter(names, pattern)

    async def forget(self, name: str, model: str | None = None) -> bool:
        fleet = self.owner(name, model)
        return fleet is not None and await asyncio.wrap_future(fleet.forget(name))

    def watch(self, watcher: Callable[[Fleet, StepResult], None]) -> None:
        """Give every result to the watcher from now on. Lanes call it; :meth:`current` selects the results that are
        still valid."""
        self._watchers.append(watcher)
        for fleet in self.fleets.values():
            fleet.watch(partial(watcher, fleet))

    def watch_forgotten(self, watcher: Callable[[Fleet, str], None]) -> None:
        """Give the name of every forgotten sensor to the watcher from now on. Any thread may call it."""
        self._forgotten_watchers.append(watcher)
        for fleet in self.fleets.values():
            fleet.forgotten_watchers.append(partial(watcher, fleet))

    def current(self, fleet: Fleet, result: StepResult) -> Forecasts:
        """A watcher's result without the sensors that were forgotten since: their slots may have other owners now."""
        slots, ids = fleet.slots, fleet.ids
        kept = [slots.get(name, -1) == slot for name, slot in zip(result.names, result.slots.tolist(), strict=True)]
        rows = np.flatnonzero(np.array(kept, np.bool_) & (ids[result.slots] == result.ids))
        if late := len(result.slots) - len(rows):
            fleet.metrics.late_results.inc(late)
        return gather(result.names[rows].tolist(), [result], fleet.layout, rows)

    def describe(self) -> list[dict[str, Any]]:
        """JSON-ready, like the other models."""
        return [describe(fleet) for fleet in self.fleets.values()]

    # -- inside --------------------------------------------------------------------------------------------------------

    def served(self) -> dict[str, Fleet]:
        """The fleets by model, at least one. During the start it raises :class:`BusyError`, so that senders try again:
        after "not found" Prometheus would drop the readings."""
        if not self._loaded:
            raise BusyError("the daemon is starting")
        if self._late:
            raise BusyError(f"no readings are taken until they can be kept: {self._trouble}", 5.0)
        if not self.fleets:
            raise NoSensorsError("no model for sensors is served here: name forecast-universal in the setting models")
        return self.fleets

    def owner(self, name: str, model: str | None) -> Fleet | None:
        return self.choose(model) if model is not None else fleet_of_name(self.served(), name)

    def _save_all(self) -> None:
        while not self._stop.wait(SAVE_SECONDS):
            self._look_at_disk()
            for fleet, saver in self._served:
                if self._stop.is_set():
                    return
                for work in (saver.save, partial(self._expire, fleet)):
                    try:
                        work()
                    except Exception:  # a failure must not affect other models or the next round
                        log.exception("sensors could not be looked after", extra={"model": fleet.model.manifest.name})

    def _look_at_disk(self) -> None:
        try:
            for loaded in self._late.copy():
                self._open_in_time(loaded)
            if not self._late:
                looks = [journal.look(self.settings.min_free_bytes) for journal in self._journals]
                trouble = next(filter(None, looks), None)
                if trouble is None and self._trouble is not None:
                    log.warning("readings can be kept again")
                elif trouble is not None and self._trouble is None:
                    log.error(f"readings can't be kept: {trouble}")
                self._trouble = trouble
        except Exception:
            log.exception("the disk could not be looked at")
        self.metrics.disk_trouble.labels("sensors").set(self._trouble is not None)

    def _expire(self, fleet: Fleet) -> None:
        if not (keep := self.settings.sensor_keep_seconds):
            return
        for name in fleet.expire(keep):
            log.info("a sensor is forgotten, it was silent for too long", extra={"stream": name})
            self.metrics.evictions.labels("silent").inc()


def _numbers(words: Sequence[str]) -> NDArray[np.float64]:
    found = []
    for word in words:
        with contextlib.suppress(ValueError):
            found.append(float(word))
    return np.array(found, np.float64)
