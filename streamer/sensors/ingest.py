"""All sensors of a model: readings in, in columns; forecasts out, in columns; nothing lost in between.

    write -> [writer: names to slots, journal] -> safe -> [lane: clocks, model, scores] -> watchers, and whoever asked

The writer is one thread: what waits for it is committed together, and acknowledged together. From there on a stream is
its lane's alone. Any thread may write.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics
from streamer.sensors.columns import Batch, Told
from streamer.sensors.latest import Latest
from streamer.sensors.reply import Teller
from streamer.sensors.scores import Track
from streamer.sensors.timeline import Clocks
from streamer.sensors.worker import Lane, Ran, Room, Watcher, Work
from streamer.store import StoreError
from streamer.store.journal import Journal, Record
from streamer.tasks.forecast import Forecaster

__all__ = ["BusyError", "Fleet", "Receipt", "Writing"]

log = logging.getLogger(__name__)

#: A record, its slots, and where its readings stand in their batch.
_Part = tuple[Record, NDArray[np.intp], NDArray[np.intp]]
#: Readings of one record of the journal, and of one piece of a lane's work.
RECORD = 4096


class BusyError(RuntimeError):
    """More readings wait than are allowed: come back in ``retry_after`` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Receipt:
    """``taken`` readings are safe. ``refused``: those of streams for which there was no room, ``example`` is one."""

    taken: int
    refused: int = 0
    example: str = ""


@dataclass(frozen=True, slots=True)
class Writing:
    """``safe``: when the readings are on the disk (without a journal: taken). ``told``: when all of them were run."""

    safe: Future[Receipt]
    told: Future[Told] | None


@dataclass(slots=True)
class _Entry:
    batch: Batch
    teller: Teller | None
    safe: Future[Any] = field(default_factory=Future)
    forget: str | None = None  # the stream that is to go


class Fleet:
    """``step`` in seconds, ``None``: every stream's own, inferred. ``gap``: masked steps for one gap, at most.
    ``most``: steps ahead that are scored. ``waiting``: readings that wait, at most, beside one batch.

    Raises :class:`ArenaError` where ``capacity`` streams do not fit into ``max_state_bytes``.
    """

    def __init__(
        self,
        model: Model,
        task: Forecaster,
        metrics: ModelMetrics,
        *,
        capacity: int,
        lanes: int,
        limit: int = 64,
        step: float | None = None,
        gap: int = 1000,
        most: int = 64,
        waiting: int = 100_000,
        max_state_bytes: int = 2**31,
        journal: Journal | None = None,
    ) -> None:
        self.model, self.task, self.metrics = model, task, metrics
        self.horizon, self.levels = task.options.horizon, task.levels
        #: The outer levels, and the one in the middle: 0.05, 0.5 and 0.95, if the model has them.
        self.outer = self.levels[0], self.levels[len(self.levels) // 2], self.levels[-1]
        self.capacity, self.journal = capacity, journal
        lanes = min(lanes, capacity)
        self._per_lane = -(-capacity // lanes)
        slots = self._per_lane * lanes
        self.room = Room(
            model,
            Arena(model.manifest.states, slots, max_state_bytes),
            Clocks(slots, step, gap),
            Track(slots, self.horizon, task.options.quantiles, most),
            Latest(slots, self.horizon, len(self.levels)),
            metrics,
            min(limit, model.manifest.max_batch, self._per_lane),
            np.zeros(slots, np.int64),
        )
        self.lanes = [Lane(self.room, f"sensors-{i}", self._less) for i in range(lanes)]
        self.slots: dict[str, int] = {}
        self.names: list[str] = [""] * slots
        self.ids = np.zeros(slots, np.int64)
        #: Of every slot: the last record that holds its readings, and the record up to which its state is saved.
        self.written, self.saved = np.zeros(slots, np.int64), np.zeros(slots, np.int64)
        self._free = [list(range((i + 1) * self._per_lane - 1, i * self._per_lane - 1, -1)) for i in range(lanes)]
        self._next_id = 1 if journal is None else journal.next_id
        self._next_seq = 1 if journal is None else journal.next_seq
        self._max_waiting = waiting
        self._inbox: deque[_Entry] = deque()
        #: Readings that were taken in and not yet run.
        self.waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._writer = threading.Thread(target=self._write_all, name="readings", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for lane in self.lanes:
            lane.start()
        self._writer.start()

    def drain(self, timeout: float) -> bool:
        """What was written is run; False if it took too long."""
        with self._changed:
            done = self._changed.wait_for(lambda: not self.waiting and not self._inbox, timeout)
        return done and all(lane.idle(timeout) for lane in self.lanes)

    def close(self, timeout: float | None = None) -> bool:
        """Threads end; what is not run is in the journal, if there is one. False if one is stuck."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for lane in self.lanes:
            lane.close()
        threads = [thread for thread in (self._writer, *self.lanes) if thread.is_alive()]
        for thread in threads:
            thread.join(timeout)
        return not any(thread.is_alive() for thread in threads)

    def watch(self, watcher: Watcher) -> None:
        """It gets every reading that was run from now on."""
        self.room.watchers = (*self.room.watchers, watcher)

    def stuck(self, seconds: float) -> bool:
        return any(lane.stalled() > seconds for lane in self.lanes)

    # -- in ------------------------------------------------------------------------------------------------------------

    def write(self, batch: Batch, *, tell: bool = False, wait: bool = False) -> Writing:
        """Every time must be there. ``tell``: what is said after each is wanted. ``wait`` for room; without it raises
        :class:`BusyError` where too many readings wait already."""
        teller = Teller(self, batch) if tell else None
        entry = _Entry(batch, teller)
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._room_for(len(batch)))
            if self._closed:
                raise BusyError("the daemon is going down")
            if not self._room_for(len(batch)):
                raise BusyError(f"{self.waiting} readings wait already (max_waiting_readings)")
            self.waiting += len(batch)
            self._inbox.append(entry)
            self._changed.notify_all()
        return Writing(entry.safe, None if teller is None else teller.told)

    def forget(self, name: str) -> Future[bool]:
        """The stream is gone, from the disk too; False: there was none."""
        entry = _Entry(Batch((), np.zeros(0), np.zeros(0)), None, forget=name)
        with self._changed:
            self._inbox.append(entry)
            self._changed.notify_all()
        return entry.safe

    def replay(self, record: Record, slot_of: dict[int, int]) -> None:
        """Readings of the last run, before :meth:`start`'s threads take any others: what a state holds is left out."""
        slots = np.array([slot_of.get(id, -1) for id in record.ids.tolist()], np.intp)
        keep = slots >= 0
        keep[keep] = self.saved[slots[keep]] < record.seq
        self.written[slots[keep]] = record.seq
        self.waiting += int(keep.sum())
        self._dispatch(record.seq, slots[keep], record.times[keep], record.values[keep], None, np.zeros(0, np.intp))

    def adopt(self, name: str, id: int, seq: int) -> int:
        """A stream of the last run gets a slot; -1: there is none left."""
        slot = self._open(name, id)
        if slot >= 0:
            self.saved[slot] = self.written[slot] = self.room.applied[slot] = seq
        return slot

    def lane_of(self, slot: int) -> Lane:
        return self.lanes[slot // self._per_lane]

    def _room_for(self, count: int) -> bool:
        return not self.waiting or self.waiting + count <= self._max_waiting

    def _less(self, count: int) -> None:
        with self._changed:
            self.waiting -= count
            self._changed.notify_all()

    # -- the writer ----------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while entries := self._next():
            try:
                self._write(entries)
            except Exception as error:  # the disk may be full: nothing of these entries was taken
                if not isinstance(error, StoreError):
                    log.exception("readings could not be taken")
                for entry in entries:
                    if not entry.safe.done():
                        self._less(len(entry.batch))
                        entry.safe.set_exception(error)

    def _next(self) -> list[_Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._closed)
            entries = list(self._inbox)
            self._inbox.clear()
        return entries

    def _write(self, entries: list[_Entry]) -> None:
        opened: list[tuple[int, str]] = []
        closed: list[tuple[str, int]] = []
        prepared: list[tuple[_Entry, Receipt, list[_Part]]] = []
        try:
            for entry in entries:
                if entry.forget is not None:
                    if (slot := self.slots.pop(entry.forget, -1)) >= 0:
                        closed.append((entry.forget, slot))
                    prepared.append((entry, Receipt(slot >= 0), []))
                    continue
                slots = self._find(entry.batch.names, opened)
                prepared.append((entry, *self._records(entry.batch, slots)))
            if self.journal is not None:
                records = [record for _, _, parts in prepared for record, _, _ in parts]
                gone = [int(self.ids[slot]) for _, slot in closed]
                self.journal.append(opened, records, gone)
        except BaseException:
            for _, name in opened:
                self._release(self.slots.pop(name))
            self.slots |= dict(closed)
            raise
        for entry, receipt, parts in prepared:
            if entry.teller is not None:
                entry.teller.expect(sum(self._pieces(slots) for _, slots, _ in parts))
            for record, slots, at in parts:
                self.saved[slots] = np.where(self.written[slots] > self.saved[slots], self.saved[slots], record.seq - 1)
                self.written[slots] = record.seq
                self._dispatch(record.seq, slots, record.times, record.values, entry.teller, at)
            self._less(receipt.refused)
            entry.safe.set_result(bool(receipt.taken) if entry.forget is not None else receipt)
        for _, slot in closed:
            nothing = np.zeros(0)
            work = Work(np.zeros(0, np.intp), nothing, nothing, 0, call=partial(self._release, slot))
            self.lane_of(slot).put(work)

    def _find(self, names: Sequence[str], opened: list[tuple[int, str]]) -> NDArray[np.intp]:
        """Slots of all streams, -1: there is no room. New ones are opened."""
        get = self.slots.get
        slots = np.fromiter((get(name, -1) for name in names), np.intp, len(names))
        for at in np.flatnonzero(slots < 0).tolist():
            name = names[at]
            slot = get(name, -1)
            if slot < 0 and (slot := self._open(name, self._next_id)) >= 0:
                opened.append((self._next_id, name))
                self._next_id += 1
            slots[at] = slot
        return slots

    def _records(self, batch: Batch, slots: NDArray[np.intp]) -> tuple[Receipt, list[_Part]]:
        kept = np.flatnonzero(slots >= 0)
        refused = len(slots) - len(kept)
        example = batch.names[int(np.argmin(slots))] if refused else ""
        parts = []
        for begin in range(0, len(kept), RECORD):
            at = kept[begin : begin + RECORD]
            record = Record(self._next_seq, self.ids[slots[at]], batch.times[at], batch.values[at])
            parts.append((record, slots[at], at))
            self._next_seq += 1
        return Receipt(len(kept), refused, example), parts

    def _pieces(self, slots: NDArray[np.intp]) -> int:
        return len(np.unique(slots // self._per_lane))

    def _dispatch(
        self,
        seq: int,
        slots: NDArray[np.intp],
        times: NDArray[np.float64],
        values: NDArray[np.float64],
        teller: Teller | None,
        at: NDArray[np.intp],
    ) -> None:
        whose = slots // self._per_lane
        for number in np.unique(whose).tolist():
            mine = np.flatnonzero(whose == number)
            tell: Callable[[Ran | None], None] | None = None if teller is None else partial(teller.part, at[mine])
            self.lanes[number].put(Work(slots[mine], times[mine], values[mine], seq, tell))

    def _open(self, name: str, id: int) -> int:
        if len(self.slots) >= self.capacity:
            return -1
        free = max(self._free, key=len)
        if not free:  # streams that are gone and not yet released
            return -1
        slot = free.pop()
        self.slots[name], self.names[slot], self.ids[slot] = slot, name, id
        return slot

    def _release(self, slot: int) -> None:
        self.room.clear(slot)
        self.ids[slot] = self.written[slot] = self.saved[slot] = 0
        self.names[slot] = ""
        self._free[slot // self._per_lane].append(slot)
