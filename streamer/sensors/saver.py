"""Sensors to the disk and back: states now and then, and at the start the readings that came behind them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Sequence
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

__all__ = ["Keeper"]

log = logging.getLogger(__name__)

#: Bytes of states that are copied and written in one go.
TOGETHER = 8 * 2**20


class Keeper:
    """``seconds``: a stream that changes is saved that often; so much of its readings is run again after a crash."""

    def __init__(
        self, fleet: Fleet, journal: Journal, metrics: Metrics, seconds: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._fleet, self._journal, self._metrics = fleet, journal, metrics
        self._seconds, self._clock = seconds, clock
        self._at = np.full(len(fleet.ids), clock())  # of every slot: when it was saved
        room = fleet.room
        each = room.arena.bytes_per_slot + room.track.bytes_per_slot + room.latest.bytes_per_slot
        self._group = max(1, TOGETHER // each)

    # -- to the disk ---------------------------------------------------------------------------------------------------

    def save(self, *, whole: bool = False) -> int:
        """Streams whose time has come, all that changed if ``whole``; how many. A failing disk is told of and
        counted: the journal keeps what is not saved."""
        fleet, now = self._fleet, self._clock()
        behind = np.flatnonzero(fleet.written > fleet.saved)
        if not whole:
            behind = behind[now - self._at[behind] >= self._seconds]
        behind = behind[np.argsort(self._at[behind], kind="stable")]
        for first in range(0, len(behind), self._group):
            slots = behind[first : first + self._group]
            with self._metrics.save_seconds.time():
                saved = self._copy(slots.tolist())
                try:
                    self._journal.save([row for _, row in saved], self._done(dict(saved)))
                except StoreError as error:
                    self._metrics.store_errors.labels("put").inc()
                    log.error("sensors could not be saved", extra={"error": str(error)})
                    return first
            self._metrics.snapshots.inc(len(saved))
            self._metrics.snapshot_bytes.inc(sum(len(row.data) for _, row in saved))
            for slot, row in saved:
                if fleet.ids[slot] == row.id:
                    fleet.saved[slot], self._at[slot] = row.seq, now
        return len(behind)

    def _copy(self, slots: Sequence[int]) -> list[tuple[int, Saved]]:
        fleet, room, found = self._fleet, self._fleet.room, []
        for slot in slots:
            with fleet.lane_of(slot).lock:
                if not fleet.names[slot]:
                    continue  # it went away meanwhile
                id, name, seq = int(fleet.ids[slot]), fleet.names[slot], int(room.applied[slot])
                parts = {
                    "state": room.arena.read(room.arena.slot(slot)),
                    "clock": room.clocks.read(slot),
                    "track": room.track.read(slot),
                    "latest": room.latest.read(slot),
                }
            found.append((slot, Saved(id, name, seq, fleet.model.digest, _to_bytes(parts))))
        return found

    def _done(self, saved: dict[int, Saved]) -> int:
        """The last record of which nothing is missing in what will be on the disk then."""
        until = self._fleet.saved.copy()
        written = self._fleet.written.copy()
        for slot, row in saved.items():
            until[slot] = row.seq
        behind = written > until
        return int(until[behind].min()) if behind.any() else int(written.max())

    # -- and back ------------------------------------------------------------------------------------------------------

    def restore(self) -> int:
        """Streams of the last run, before the fleet is started; how many. Raises :class:`ModelError` if there are more
        than fit: none of them is dropped behind anybody's back."""
        fleet, count, anew = self._fleet, 0, 0
        slot_of: dict[int, int] = {}
        for saved in self._journal.streams():
            slot = fleet.adopt(saved.name, saved.id, saved.seq)
            if slot < 0:
                raise ModelError(f"more than {fleet.capacity} sensors are saved: allow more with max_sensors")
            slot_of[saved.id] = slot
            count += 1
            if saved.data:
                anew += not self._wake(slot, saved)
        if anew:
            self._metrics.lost_states.inc(anew)
            log.error("sensors begin anew: their states are of another model file, or damaged", extra={"streams": anew})
        readings = 0
        for record in self._journal.records():
            readings += len(record.ids)
            fleet.replay(record, slot_of)
        self._metrics.store_errors.labels("journal").inc(self._journal.damaged)
        if count:
            log.info("sensors restored", extra={"streams": count, "readings_run_again": readings})
        return count

    def _wake(self, slot: int, saved: Saved) -> bool:
        room = self._fleet.room
        if saved.model != self._fleet.model.digest:
            return False
        try:
            parts = _from_bytes(saved.data)
            room.arena.write(room.arena.slot(slot), parts["state"])
            room.track.write(slot, parts["track"])
            room.latest.write(slot, parts["latest"])
            room.clocks.write(slot, parts["clock"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("a state is damaged", extra={"stream": saved.name, "error": str(error)})
            room.clear(slot)
            room.applied[slot] = saved.seq
            return False
        return True


def _to_bytes(parts: dict[str, dict[str, NDArray[Any]]]) -> bytes:
    names = [[part, name] for part, arrays in parts.items() for name in arrays]
    body = pack({"names": names}, [parts[part][name] for part, name in names])
    return zlib.crc32(body).to_bytes(4, "little") + body


def _from_bytes(data: bytes) -> dict[str, dict[str, NDArray[Any]]]:
    if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise ValueError("its checksum is wrong")
    facts, arrays = unpack(data[4:])
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    for (part, name), array in zip(facts["names"], arrays, strict=True):
        parts.setdefault(part, {})[name] = array
    return parts
