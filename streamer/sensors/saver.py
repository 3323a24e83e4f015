"""Writes the states of sensors to the disk at intervals; at the start it loads them and runs the later readings."""

from __future__ import annotations

import logging
import math
import threading
import zlib
from collections.abc import Callable, Sequence
from itertools import groupby
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.sensors.ingest import Fleet
from streamer.store import StoreError
from streamer.store.journal import Journal, Saved
from streamer.tasks.snapshot import pack, unpack

__all__ = ["Saver", "from_bytes", "to_bytes"]

log = logging.getLogger(__name__)

#: Seconds between two saves of the ages of sensors (time since the last reading).
AGE_SECONDS = 3600.0
#: After this many failed writes in a row the disk is to blame, and the round ends.
MISSES = 3
#: Bytes of states that are copied and written in one go.
TOGETHER = 8 * 2**20


class Saver:
    """``seconds``: between two saves of a changing stream. After a crash the readings since the last save are run
    again. ``patience``: seconds to wait for a lane within a step."""

    def __init__(
        self,
        fleet: Fleet,
        journal: Journal,
        metrics: Metrics,
        seconds: float,
        clock: Callable[[], float] = monotonic,
        patience: float = 10.0,
    ) -> None:
        self._fleet, self._journal, self._metrics = fleet, journal, metrics
        self._seconds, self._clock, self._patience = seconds, clock, patience
        self._aged = clock()
        self._at = np.full(len(fleet.ids), clock())  # for every slot: when it was saved
        self._group = max(1, TOGETHER // fleet.table.bytes_per_slot)
        self._saving = threading.Lock()  # of two copies of a state the newer must be written last

    # -- to the disk ---------------------------------------------------------------------------------------------------

    def save(self, *, whole: bool = False, until: float = math.inf) -> int:
        """Save the streams that are due, or all changed ones if ``whole``; returns the number of saved streams. A
        failure is logged and counted. The journal keeps the readings of failed streams, and of those that are left at
        ``until`` (monotonic seconds). Any thread may call it; calls run one at a time."""
        with self._saving:
            return self._save(whole, until)

    def _save(self, whole: bool, until: float) -> int:
        fleet, now, count = self._fleet, self._clock(), 0
        behind = np.flatnonzero(fleet.written > fleet.saved)
        if not whole:
            behind = behind[now - self._at[behind] >= self._seconds]
        if whole or now - self._aged >= AGE_SECONDS:
            self._save_ages(now)
        behind = behind[np.argsort(self._at[behind], kind="stable")]
        misses = 0
        for first in range(0, len(behind), self._group):
            if monotonic() > until:
                log.warning(
                    "sensors are left unsaved: their readings are run again", extra={"sensors": len(behind) - first}
                )
                break
            slots = behind[first : first + self._group]
            with self._metrics.save_seconds.time():
                saved = self._write(self._copy(slots.tolist(), now), now)
            self._metrics.snapshots.inc(len(saved))
            self._metrics.snapshot_bytes.inc(sum(len(row.data) for _, row in saved))
            for slot, row in saved:
                if fleet.ids[slot] == row.id:
                    fleet.saved[slot], self._at[slot] = row.seq, now
            count += len(saved)
            misses = 0 if saved else misses + 1
            if misses == MISSES:
                break
        return count

    def _write(self, saved: list[tuple[int, Saved]], now: float) -> list[tuple[int, Saved]]:
        """Write states as one transaction; if it fails, each is tried alone. Returns those that are on the disk."""
        try:
            self._journal.save([row for _, row in saved], self._done(dict(saved)))
        except Exception as error:
            if len(saved) > 1:
                return self._write_apart(saved, now)
            for slot, row in saved:
                self._failed(slot, row.name, error, now)
            return []
        return saved

    def _write_apart(self, saved: list[tuple[int, Saved]], now: float) -> list[tuple[int, Saved]]:
        found, misses = [], 0
        for each in saved:
            one = self._write([each], now)
            found += one
            misses = 0 if one else misses + 1
            if misses == MISSES:
                break
        return found

    def _failed(self, slot: int, name: str, error: Exception, now: float) -> None:
        """A failed stream is tried again when it is next due, so that the others do not wait for it."""
        self._at[slot] = now
        self._metrics.store_errors.labels("put").inc()
        log.error("a sensor could not be saved", extra={"stream": name, "error": str(error) or type(error).__name__})

    def _save_ages(self, now: float) -> None:
        fleet = self._fleet
        slots = np.array(list(fleet.slots.copy().values()), np.intp)
        slots = slots[fleet.table.latest.readings[slots] > 0]
        ages = fleet.table.latest.ages(slots).tolist()
        try:
            self._journal.save_ages(list(zip(fleet.ids[slots].tolist(), ages, strict=True)))
        except StoreError as error:
            self._metrics.store_errors.labels("put").inc()
            log.error("the ages of sensors could not be saved", extra={"error": str(error)})
        self._aged = now

    def _copy(self, slots: Sequence[int], now: float) -> list[tuple[int, Saved]]:
        """Copy states of a lane under its lock. The streams of a lane that hangs are left out."""
        found = []
        for lane, theirs in groupby(sorted(slots), self._fleet.lane_of):
            with lane.lock.within(self._patience) as held:
                for slot in theirs:
                    try:
                        if not held:
                            raise TimeoutError(f"its lane hangs, no step came back for {self._patience:g} s")
                        if (saved := self._copy_one(slot)) is not None:
                            found.append((slot, saved))
                    except Exception as error:
                        self._failed(slot, self._fleet.names[slot], error, now)
        return found

    def _copy_one(self, slot: int) -> Saved | None:
        """``None``: the stream was removed meanwhile."""
        fleet, table = self._fleet, self._fleet.table
        if not fleet.names[slot]:
            return None
        id, name, seq = int(fleet.ids[slot]), fleet.names[slot], int(table.applied[slot])
        return Saved(id, name, seq, fleet.model.digest, to_bytes(table.read(slot), table.state_layout))

    def _done(self, saved: dict[int, Saved]) -> int:
        """The last record that every stream's saved state contains once ``saved`` is on the disk."""
        until = self._fleet.saved.copy()
        written = self._fleet.written.copy()
        for slot, row in saved.items():
            until[slot] = row.seq
        behind = written > until
        return int(until[behind].min()) if behind.any() else int(written.max())

    # -- and back ------------------------------------------------------------------------------------------------------

    def restore(self) -> int:
        """Load the streams of the last run, before the fleet is started; how many. Raises :class:`ModelError` if there
        are more than fit: none is dropped silently."""
        fleet, count, empty = self._fleet, 0, 0
        slot_of: dict[int, int] = {}
        ages = self._journal.ages()
        for saved in self._journal.streams():
            slot = fleet.adopt(saved.name, saved.id, saved.seq)
            if slot < 0:
                raise ModelError(f"more than {fleet.capacity} sensors are saved: allow more with max_sensors")
            slot_of[saved.id] = slot
            count += 1
            if saved.data:
                empty += not self._wake(slot, saved)
                fleet.table.latest.set_age(slot, ages.get(saved.id, 0.0))
        if self._journal.loss is not None:
            empty += self._journal.loss.lost.get("streams", 0)
        if empty:
            self._metrics.lost_states.inc(empty)
            log.error("sensors start from zero: their states are damaged or of another model", extra={"streams": empty})
        readings, ran = 0, fleet.table.progress.ran.copy()
        for record in self._journal.records():
            try:
                fleet.replay(record, slot_of, ran)
                readings += len(record.ids)
            except Exception:  # no content of a record may stop the start
                self._metrics.store_errors.labels("journal").inc()
                log.exception("a record of the journal can't be run again", extra={"record": record.seq})
        self._metrics.store_errors.labels("journal").inc(self._journal.damaged)
        if count:
            log.info("sensors restored", extra={"streams": count, "readings_run_again": readings})
        return count

    def _wake(self, slot: int, saved: Saved) -> bool:
        table = self._fleet.table
        try:
            if saved.model != self._fleet.model.digest and layout_in(saved.data) != table.state_layout:
                return False
            table.write(slot, from_bytes(saved.data))
        except Exception as error:  # any error affects this state alone: the others are restored
            log.warning("a state is damaged", extra={"stream": saved.name, "error": str(error)})
            table.clear(slot)
            table.applied[slot] = saved.seq
            return False
        return True


def to_bytes(parts: dict[str, dict[str, NDArray[Any]]], layout: str) -> bytes:
    """``layout``: see :func:`streamer.sensors.layout.state_layout`."""
    names = [[part, name] for part, arrays in parts.items() for name in arrays]
    body = pack({"names": names, "layout": layout}, [parts[part][name] for part, name in names])
    return zlib.crc32(body).to_bytes(4, "little") + body


def layout_in(data: bytes) -> str:
    """The layout's digest, empty in bytes of earlier versions. Raises ``ValueError`` as :func:`from_bytes` does."""
    return str(_unpacked(data)[0].get("layout", ""))


def from_bytes(data: bytes) -> dict[str, dict[str, NDArray[Any]]]:
    facts, arrays = _unpacked(data)
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for (part, name), array in zip(facts["names"], arrays, strict=True):
        parts.setdefault(part, {})[name] = array
    return parts


def _unpacked(data: bytes) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise ValueError("its checksum is wrong")
    return unpack(data[4:])
