"""All sensors of one model: takes readings in columns, keeps them in the journal, gives forecasts in columns.

    write -> [writer: names to slots, journal] -> safe -> [lane: timelines, model, scores] -> watchers and replies

The writer is one thread: it commits all waiting requests together and acknowledges them together. After that only the
stream's lane touches the stream. Any thread may write.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from itertools import groupby
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics
from streamer.sensors.arrival import Arrival, settle
from streamer.sensors.backlog import DEPTH, Work
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.commit import CommitPlan, Planned
from streamer.sensors.directory import Directory
from streamer.sensors.history import History
from streamer.sensors.latest import Latest
from streamer.sensors.layout import RowLayout
from streamer.sensors.reply import Reply
from streamer.sensors.scores import Track
from streamer.sensors.table import Parts, Progress, SensorTable, Watcher
from streamer.sensors.timeline import EARNED, Timelines
from streamer.sensors.worker import SensorLane
from streamer.sensors.writes import NO_READINGS, BusyError, Entry, PendingWrite
from streamer.store import StoreError
from streamer.store.journal import Journal, Record
from streamer.tasks.forecast import Forecaster

__all__ = ["Fleet"]

log = logging.getLogger(__name__)

#: This many streams with long queues fill all the room for waiting readings.
SHARES = 8


class Fleet:
    """Sensors of one model: each stream is one sensor, or a plant of several (see :class:`RowLayout`).

    ``step`` in seconds, ``None``: every stream's own, inferred. ``gap``: masked steps for one gap, at most.
    ``earned``: masked steps for each reading, in the long run. ``most``: steps ahead that are scored. ``shown``:
    readings kept for :class:`History`. ``waiting``: readings that wait, at most, beside one batch; at most
    ``1 / SHARES`` of them count for one stream, so that it leaves room for others. ``seconds``: bound on the time in
    which the waiting readings would be run.

    Raises :class:`ArenaError` if ``capacity`` streams do not fit into ``max_state_bytes``.
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
        shown: int = 0,
        earned: int = EARNED,
        waiting: int = 100_000,
        seconds: float = math.inf,
        max_state_bytes: int = 2**31,
        clock: Callable[[], float] = monotonic,
        journal: Journal | None = None,
    ) -> None:
        self.metrics = metrics
        self.layout = layout = RowLayout.of(task)
        self.capacity, self.journal = capacity, journal
        self.forgotten_watchers: list[Callable[[str], None]] = []  # get the names of removed streams
        lanes = min(lanes, capacity)
        self.directory = Directory(capacity, lanes, 1 if journal is None else journal.next_id)
        self.slots, self.names, self.ids = self.directory.slots, self.directory.names, self.directory.ids
        self.written, self.saved = self.directory.written, self.directory.saved
        self._per_lane = self.directory.per_lane
        slots = len(self.names)
        self.table = SensorTable(
            layout,
            self.directory,
            model,
            Arena(model.manifest.states, slots, max_state_bytes, model.manifest.conditions),
            Timelines(slots, step, gap, earned),
            Track(slots * len(layout.chosen), layout.horizon, layout.quantiles, most),
            Latest(slots, layout, clock),
            History(slots, layout, shown),
            metrics,
            min(limit, model.manifest.max_batch, self._per_lane),
            np.zeros(slots, np.int64),
            Progress(slots),
        )
        self.lanes = [SensorLane(self.table, f"sensors-{i}", self._ran) for i in range(lanes)]
        self._next_seq = 1 if journal is None else journal.next_seq
        self._max_waiting, self._max_seconds = waiting, seconds
        self._inbox: deque[Entry] = deque()
        #: Readings that were accepted and not yet run; for every slot those that its lane has.
        self.waiting = 0
        self._queued = np.zeros(slots, np.int64)
        self._changed = threading.Condition()
        self._closed = False
        self._replies: set[Reply] = set()  # replies that clients wait for
        self._writer = threading.Thread(target=self._write_all, name="readings", daemon=True)

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for lane in self.lanes:
            lane.start()
        self._writer.start()

    def drain(self, timeout: float) -> bool:
        """Wait until all written readings are run; False if that took longer than ``timeout``."""
        until = monotonic() + timeout
        with self._changed:
            done = self._changed.wait_for(lambda: not self.waiting and not self._inbox, timeout)
        return done and all(lane.idle(max(0.0, until - monotonic())) for lane in self.lanes)

    def give_up(self) -> None:
        """End all waits for results with an error: the readings are run after the next start."""
        for reply in self._replies.copy():
            reply.give_up(BusyError("the daemon is going down: the readings are kept, and run after the next start"))

    def close(self, timeout: float | None = None) -> bool:
        """End the threads; readings that are not run stay in the journal, if there is one. False if a thread is
        stuck."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for lane in self.lanes:
            lane.close()
        until = None if timeout is None else monotonic() + timeout
        threads = [thread for thread in (self._writer, *self.lanes) if thread.is_alive()]
        for thread in threads:
            thread.join(None if until is None else max(0.0, until - monotonic()))
        return not any(thread.is_alive() for thread in threads)

    @property
    def model(self) -> Model:
        """The version that serves."""
        return self.table.model

    def watch(self, watcher: Watcher) -> None:
        """Give the results of all readings to the watcher from now on."""
        self.table.watchers = (*self.table.watchers, watcher)

    def stuck(self, seconds: float) -> bool:
        return any(lane.stalled() > seconds for lane in self.lanes)

    # -- in ------------------------------------------------------------------------------------------------------------

    def write(
        self, batch: ReadingBatch, *, answer: bool = False, count: bool = False, wait: bool = False
    ) -> PendingWrite:
        """Accept readings, all with times. ``answer``: the reply has the forecasts after each reading; ``count``: the
        reply only has the readings that were left out, or failed. ``wait``: wait for room; without it raises
        :class:`BusyError` if too many readings wait already. ``ValueError``: the model takes other rows."""
        if batch.values.shape[1:] != self.layout.row:
            raise ValueError(f"readings of the shape {batch.values.shape[1:]}, the model takes {self.layout.row}")
        if not len(batch.names) == len(batch.times) == len(batch.values) or batch.times.dtype != np.float64:
            raise ValueError("names, times (float64) and values of readings are as many")
        reply = Reply(self.layout, batch, answer) if answer or count else None
        if reply is not None:
            self._replies.add(reply)
            reply.forecasts.add_done_callback(lambda _: self._replies.discard(reply))
        entry = Entry(batch, reply)
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._room_for(len(batch)))
            if self._closed:
                raise BusyError("the daemon is going down")
            if not wait and (busy := self._too_much(len(batch))) is not None:
                raise busy
            self.waiting += len(batch)
            self._inbox.append(entry)
            self._changed.notify_all()
        return PendingWrite(entry.safe, None if reply is None else reply.forecasts)

    def forget(self, name: str, *, moved: bool = False) -> Future[bool]:
        """Remove the stream, from the disk too; False: there was none. ``moved``: it continues at another daemon, so
        its forecasts stay published, and watchers get no notice."""
        return self._forget(name, None, moved)

    def expire(self, seconds: float, timeout: float = 60.0) -> list[str]:
        """Forget streams without a reading for that time, and wait until they are removed; returns their names. A
        stream that gets a reading meanwhile stays. Raises ``TimeoutError`` if the disk takes longer than
        ``timeout``."""
        written = self.written.copy()
        silent = self.table.latest.silent(seconds)
        done = silent[self.table.applied[silent] == written[silent]]
        found = [
            (name, (int(self.ids[slot]), int(written[slot]))) for slot in done.tolist() if (name := self.names[slot])
        ]
        gone = [(name, self._forget(name, only)) for name, only in found]
        return [name for name, future in gone if future.result(timeout)]

    def bring(self, name: str, parts: Parts, data: bytes) -> Future[str | None]:
        """Import a stream of another daemon: ``parts`` of its :meth:`SensorTable.read`, ``data`` the same as saved
        bytes. The future gives the reason why it can't be imported, ``None``: it is here. It may raise
        :class:`StoreError`."""
        return self._ask(Entry(NO_READINGS, None, bring=Arrival(name, parts, data)))

    def _forget(self, name: str, only: tuple[int, int] | None, moved: bool = False) -> Future[bool]:
        future = self._ask(Entry(NO_READINGS, None, forget=name, only=only))
        if not moved:
            future.add_done_callback(lambda done: self._tell_forgotten(name, done))
        return future

    def _tell_forgotten(self, name: str, done: Future[bool]) -> None:
        if not done.cancelled() and done.exception() is None and done.result():
            for watcher in self.forgotten_watchers:
                watcher(name)

    def _ask(self, entry: Entry) -> Future[Any]:
        with self._changed:
            if self._closed:
                raise BusyError("the daemon is going down")
            self._inbox.append(entry)
            self._changed.notify_all()
        return entry.safe

    def replay(self, record: Record, slot_of: dict[int, int], ran: NDArray[np.int64]) -> None:
        """Dispatch readings of the last run, before :meth:`start`; readings that a saved state contains are left out.
        ``ran``, by slot: the number of readings after the saved record that the state contains; it is reduced by those
        of this record."""
        slots = np.array([slot_of.get(id, -1) for id in record.ids.tolist()], np.intp)
        keep = slots >= 0
        keep[keep] = self.saved[slots[keep]] < record.seq
        self.written[slots[keep]] = record.seq
        for slot in np.unique(slots[keep][ran[slots[keep]] > 0]).tolist():
            over = np.flatnonzero(keep & (slots == slot))[: ran[slot]]
            keep[over] = False
            ran[slot] -= len(over)
        self.waiting += int(keep.sum())
        self._dispatch(record.take(keep), slots[keep], None, np.zeros(0, np.intp))

    def adopt(self, name: str, id: int, seq: int) -> int:
        """Give a stream of the last run a slot; -1: none is left."""
        slot = self.directory.restore(name, id, seq)
        if slot >= 0:
            self.table.applied[slot] = seq
        return slot

    def lane_of(self, slot: int) -> SensorLane:
        return self.lanes[slot // self._per_lane]

    def waits(self) -> float:
        """Seconds that the oldest reading has waited to be run."""
        return max(lane.waited() for lane in self.lanes)

    def behind(self) -> float:
        """Seconds in which the waiting readings would be run, as measured, counting at most ``DEPTH`` readings of each
        stream: the longest wait of a new reading, if no other reading of its stream waits. 0: not yet measured."""
        rate = sum(lane.rate for lane in self.lanes)
        return self._counted(DEPTH) / rate if rate else 0.0

    def _room_for(self, count: int) -> bool:
        return not self.waiting or self.waiting + count <= self._max_waiting

    def _counted(self, most: int) -> int:
        """The number of waiting readings, counting at most ``most`` for each stream."""
        return self.waiting - int(self._queued.sum() - np.minimum(self._queued, most).sum())

    def _too_much(self, count: int) -> BusyError | None:
        if not self.waiting:
            return None
        if self._counted(max(1, self._max_waiting // SHARES)) + count > self._max_waiting:
            return BusyError(f"{self.waiting} readings wait already (max_waiting_readings)")
        if (seconds := self.behind()) > self._max_seconds:
            said = f"readings wait for {seconds:.1f} s to be run, at most {self._max_seconds:g} s are allowed"
            return BusyError(f"{said} (max_waiting_seconds)", max(1.0, seconds - self._max_seconds))
        return None

    def _ran(self, slots: NDArray[np.intp]) -> None:
        with self._changed:
            np.subtract.at(self._queued, slots, 1)
            self.waiting -= len(slots)
            self._changed.notify_all()

    def _less(self, count: int) -> None:
        with self._changed:
            self.waiting -= count
            self._changed.notify_all()

    # -- the writer ----------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        while entries := self._next():
            for arriving, group in groupby(entries, lambda entry: entry.bring is not None):
                if arriving:
                    for entry in group:
                        self._settle(entry)
                else:
                    self._commit(list(group))

    def _settle(self, entry: Entry) -> None:
        assert entry.bring is not None
        try:
            entry.safe.set_result(settle(entry.bring, self.table, self.journal, self.lane_of, self._next_seq - 1))
        except Exception as error:
            self._fail(entry, error)

    def _next(self) -> list[Entry]:
        with self._changed:
            self._changed.wait_for(lambda: self._inbox or self._closed)
            entries = list(self._inbox)
            self._inbox.clear()
        return entries

    def _commit(self, entries: list[Entry]) -> None:
        """Commit all entries as one transaction. If it fails, each entry is tried alone, so that only bad ones fail."""
        plan: CommitPlan[Entry] = CommitPlan(self.directory, self._next_seq, self._queued >= self._max_waiting)
        for entry in entries:
            try:
                if entry.forget is None:
                    plan.write(entry, entry.batch)
                else:
                    plan.forget(entry, entry.forget, entry.only)
            except Exception as error:
                self._fail(entry, error)
        try:
            if self.journal is not None and (plan.changes or plan.records):
                self.journal.append(plan.changes, plan.records)
        except Exception as error:  # the disk may be full: nothing of these entries was taken
            plan.abandon()
            if len(plan.planned) == 1:
                self._fail(plan.planned[0].request, error)
            else:
                for planned in plan.planned:
                    self._commit([planned.request])
            return
        self._next_seq = plan.next_seq
        for planned in plan.planned:
            self._apply(planned)

    def _fail(self, entry: Entry, error: Exception) -> None:
        if not isinstance(error, StoreError):
            log.error("readings could not be taken", exc_info=error)
        self._less(len(entry.batch))
        entry.safe.set_exception(error)

    def _apply(self, planned: Planned[Entry]) -> None:
        """Apply the committed plan to the directory, and dispatch its readings to the lanes."""
        entry, receipt = planned.request, planned.receipt
        for name, slot in planned.opened:
            self.directory.enter(name, slot)
        if entry.reply is not None:
            entry.reply.expect(sum(self._pieces(part.slots) for part in planned.parts))
        for part in planned.parts:
            record, slots = part.record, part.slots
            self.saved[slots] = np.where(self.written[slots] > self.saved[slots], self.saved[slots], record.seq - 1)
            self.written[slots] = record.seq
            self._dispatch(record, slots, entry.reply, part.at)
        for name, slot in planned.closed:
            self.directory.leave(name)
            self.lane_of(slot).put(Work.calling(partial(self.table.release, slot), np.array([slot])))
        self._less(receipt.refused)
        entry.safe.set_result(bool(receipt.taken) if entry.forget is not None else receipt)

    def _pieces(self, slots: NDArray[np.intp]) -> int:
        return len(np.unique(slots // self._per_lane))

    def _dispatch(
        self,
        record: Record,
        slots: NDArray[np.intp],
        reply: Reply | None,
        at: NDArray[np.intp],
    ) -> None:
        whose = slots // self._per_lane
        with self._changed:
            np.add.at(self._queued, slots, 1)
        for number in np.unique(whose).tolist():
            mine = np.flatnonzero(whose == number)
            calls = () if reply is None else (reply.part, reply.fail, reply.leave)
            callbacks: list[Any] = [partial(call, at[mine]) for call in calls]
            columns = record.times[mine], record.values[mine], record.stamped[mine]
            generations = self.table.arena.generations[slots[mine]]
            self.lanes[number].put(Work(slots[mine], generations, *columns, record.seq, *callbacks))
