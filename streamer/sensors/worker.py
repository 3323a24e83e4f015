"""A lane: a thread that owns some of the slots and runs all of their readings that wait.

A stream belongs to one lane for good, so its readings stay in order without locks. Readings of one stream are run one
after another, in rounds; a round holds one of each stream that has any. A gap's masked steps are rounds, too.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.engine.denormals import flush_denormals
from streamer.sensors.columns import StepResult
from streamer.sensors.runner import Runner
from streamer.sensors.table import SensorTable
from streamer.sensors.timeline import WHOLE, phases

__all__ = ["SensorLane", "Work"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]
#: Readings that a lane takes at a time, at least one piece of work: between two takes it can be copied.
TAKE = 4096
#: Readings whose forecasts are scored and given away together: a reading waits for that many, at most.
TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Work:
    """Readings of slots of one lane. ``seq``: of the journal's record that holds them. ``generations``: of the slots
    when the readings were taken; what comes for a former owner is late. ``call`` runs instead."""

    slots: Slots
    generations: NDArray[np.int64]
    times: Floats
    values: Floats
    stamped: NDArray[np.bool_]
    seq: int
    #: Gets what was run, in parts, and ``None`` at the end.
    deliver: Callable[[StepResult | None], None] | None = None
    #: Gets which of the readings failed when they were run, if any did.
    fail: Callable[[NDArray[np.intp]], None] | None = None
    #: Gets which were left out, and of each whether it was late (else it was a duplicate).
    leave: Callable[[tuple[NDArray[np.intp], NDArray[np.bool_]]], None] | None = None
    call: Callable[[], None] | None = None

    @classmethod
    def calling(cls, call: Callable[[], None]) -> Work:
        """No readings."""
        nothing = np.zeros(0)
        slots, generations, stamped = nothing.astype(np.intp), nothing.astype(np.int64), nothing.astype(np.bool_)
        return cls(slots, generations, nothing, nothing, stamped, 0, call=call)


class SensorLane(threading.Thread):
    """``done`` is called with the number of readings that were just run.

    Two locks guard the lane's slots. The lane holds ``lock`` while it runs a piece of work: the saver takes it, and may
    wait for seconds. The lane holds ``rows`` for a moment after each step: readers of the latest results take it.
    ``lock`` is taken before ``rows``.
    """

    def __init__(self, table: SensorTable, name: str, done: Callable[[int], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._table, self._done = table, done
        self.lock = threading.Lock()
        self.rows = threading.Lock()
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._since: float | None = None  # when the present work was taken, or its last step was done

    # -- from outside --------------------------------------------------------------------------------------------------

    def put(self, work: Work) -> None:
        with self._changed:
            self._queue.append(work)
            self._changed.notify_all()

    def close(self) -> None:
        """What waits stays unrun."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is left to run; False if it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and self._since is None, timeout)

    def stalled(self) -> float:
        """Seconds that the present step of the present work has taken."""
        since = self._since
        return 0.0 if since is None else monotonic() - since

    # -- the thread ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        flush_denormals()
        table = self._table
        runner = Runner(table.model, table.arena, table.metrics, table.limit)
        while taken := self._take():
            for works in _together(taken):
                with self.lock:
                    self._work(works, runner)
                for work in works:
                    _hand_over(work.deliver, None)
            with self._changed:
                self._since = None
                self._changed.notify_all()
            self._done(sum(len(work.slots) for work in taken))

    def _take(self) -> list[Work]:
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return []
            self._since = monotonic()
            taken, count = [self._queue.popleft()], 0
            while self._queue and count < TAKE:
                count += len(taken[-1].slots)
                taken.append(self._queue.popleft())
            return taken

    def _work(self, works: list[Work], runner: Runner) -> None:
        """Whatever goes wrong is the problem of the work that it is about, and not of what is run with it."""
        try:
            if works[0].call is not None:
                with self.rows:
                    works[0].call()
                return
            columns = _columns(works)
        except Exception:
            if len(works) > 1:
                for work in works:
                    self._work([work], runner)
                return
            log.exception("work of sensors failed")
            self._table.metrics.failed_batches.inc()
            self._fail(works, np.zeros(len(works[0].slots), np.intp), np.arange(len(works[0].slots)))
            return
        self._run(works, columns, runner)

    def _run(self, works: list[Work], columns: _Columns, runner: Runner) -> None:
        table = self._table
        slots, generations, times, values, stamped, whose, own = columns
        asked = np.array([work.deliver is not None for work in works])

        current = table.arena.current_rows(slots, generations)
        if late := len(slots) - int(current.sum()):
            table.metrics.late_results.inc(late)
        order = np.argsort(slots, kind="stable")
        order = order[current[order]]
        streams, first, count = np.unique(slots[order], return_index=True, return_counts=True)
        at, end = first.copy(), first + count  # of every stream: its next reading, in `order`
        masked = np.zeros(len(streams), np.int64)
        breaks = np.zeros(len(streams), np.uint8)
        placed = np.zeros(len(streams), np.bool_)  # its next reading has been looked at
        failed: list[int] = []
        left: list[tuple[NDArray[np.intp], NDArray[np.bool_]]] = []

        def place(rows: Slots) -> None:
            reading = order[at[rows]]
            with self.rows:
                found = table.timelines.place(streams[rows], times[reading], stamped[reading])
            masked[rows], breaks[rows] = found.masked, found.breaks
            placed[rows] = found.taken
            if not found.taken.all():
                left.append((reading[~found.taken], found.late[~found.taken]))
            at[rows] += ~found.taken

        def step(rows: Slots) -> None:
            gap, reading = masked[rows] > 0, order[at[rows]]
            pace = np.where(gap, table.timelines.step[streams[rows]], 0.0)
            then, value = times[reading] - masked[rows] * pace, values[reading]
            value[gap] = np.nan
            chunk = _Chunk(streams[rows], generations[reading], then, value, gap, breaks[rows], reading)
            failed.extend(self._step(runner, chunk, lambda result: self._deliver(result, works, whose, own, asked)))
            advance(rows)

        def advance(rows: Slots) -> None:
            gap = masked[rows] > 0
            masked[rows] -= gap
            done = rows[~gap]
            at[done] += 1
            placed[done] = False

        def leave(row: Slots) -> None:
            if not masked[row].any():
                failed.extend(order[at[row]].tolist())
            advance(row)

        while len(live := np.flatnonzero(at < end)):
            new = live[~placed[live]]
            self._apart(new, place, leave)
            if not placed[live].all():  # some were left out: the next reading of their streams comes first
                continue
            for begin in range(0, len(live), TOGETHER):
                self._apart(live[begin : begin + TOGETHER], step, leave)
                self._since = monotonic()
        if failed:
            self._fail(works, whose[failed], own[failed])
        if left and any(work.leave is not None for work in works):
            rows, late_ones = (np.concatenate(parts) for parts in zip(*left, strict=True))
            for owner in np.unique(whose[rows]).tolist():
                mine = whose[rows] == owner
                _hand_over(works[owner].leave, (own[rows[mine]], late_ones[mine]))
        for work in works:
            mine = table.arena.current_rows(work.slots, work.generations)
            table.applied[work.slots[mine]] = work.seq

    def _apart(self, rows: Slots, call: Callable[[Slots], None], leave: Callable[[Slots], None]) -> None:
        """``call`` with all rows at once; where that fails with each alone, and those that fail alone are left."""
        if not len(rows):
            return
        try:
            call(rows)
        except Exception:  # whatever it is, it is the problem of the reading that causes it
            if len(rows) == 1:
                log.exception("a reading could not be run")
                self._table.metrics.failed_batches.inc()
                leave(rows)
                return
            for at in range(len(rows)):
                self._apart(rows[at : at + 1], call, leave)

    def _fail(self, works: list[Work], whose: NDArray[np.intp], own: NDArray[np.intp]) -> None:
        """Count readings that failed, and tell the works they are of."""
        self._table.metrics.failed_readings.inc(len(own))
        for owner in np.unique(whose).tolist():
            _hand_over(works[owner].fail, np.sort(own[whose == owner]))

    def _step(self, runner: Runner, chunk: _Chunk, deliver: Callable[[StepResult], None]) -> list[int]:
        """One step of streams that are all different; which readings failed."""
        begin, table = perf_counter(), self._table
        slots, values, gap = chunk.slots, chunk.values, chunk.gap
        there, count = ~np.isnan(values), values.shape[1]
        inputs = np.empty((len(slots), 1, 2 * count + 2), runner.dtype)
        inputs[:, 0, :count], inputs[:, 0, count:-2] = np.where(there, values, 0.0), there
        inputs[:, 0, -2], inputs[:, 0, -1] = phases(chunk.times)
        chosen = values[:, table.layout.chosen]  # those of the targets
        found = runner(slots, chunk.generations, inputs)
        run = perf_counter()
        bad = found.failed.copy()

        def record(rows: Slots) -> None:
            real, whole = ~gap[rows], chunk.breaks[rows] != WHOLE
            said = found.quantiles[rows], found.anomalies[rows], found.drifts[rows]
            with self.rows:
                if len(rows) < len(good):  # again, after a failure: what was scored is not to be scored twice
                    table.track.forget(table.tracks(slots[rows]))
                self._score(slots[rows], chosen[rows], real & whole, said[0])
                about = chunk.reading[rows], chunk.times[rows], chosen[rows], chunk.breaks[rows]
                result = self._keep(real, slots[rows], *about, *said)
            if result is not None:
                for watcher in table.watchers:
                    _hand_over(watcher, result)
                deliver(result)

        def leave(rows: Slots) -> None:
            bad[rows] = True

        if bad.any():
            with self.rows:
                table.track.forget(table.tracks(slots[bad]))
        good = np.flatnonzero(found.good)
        self._apart(good, record, leave)
        table.metrics.steps.inc(len(good))
        table.metrics.chunks.inc(len(good))
        table.metrics.decode_seconds.observe(perf_counter() - run)
        table.metrics.busy_seconds.inc(perf_counter() - begin)
        failed: list[int] = chunk.reading[bad & ~gap].tolist()
        return failed

    def _score(self, slots: Slots, values: Floats, broken: NDArray[np.bool_], quantiles: Floats) -> None:
        """``values`` [N, K]. ``broken``: earlier forecasts do not reach this reading."""
        table = self._table
        step = table.timelines.step[slots]
        seasons = np.where(step > 0, np.rint(86400 / np.where(step > 0, step, 1.0)), 0).clip(0, 2**31).astype(np.int64)
        if broken.any():
            table.track.forget(table.tracks(slots[broken]))
        there, targets = ~np.isnan(values), values.shape[1]
        table.latest.begun[slots] |= there.reshape(len(slots), *table.layout.each)
        rows, truth, known = table.tracks(slots), values.ravel(), there.ravel()
        curves = quantiles.reshape(len(rows), *quantiles.shape[-2:])
        table.track.truth(rows, truth, np.repeat(seasons, targets))
        if known.all():
            table.track.said(rows, curves, truth)
        elif known.any():
            table.track.said(rows[known], curves[known], truth[known])

    def _keep(self, real: NDArray[np.bool_], slots: Slots, *rest: NDArray[Any]) -> StepResult | None:
        """Results of readings, not of a gap's masked steps."""
        table = self._table
        if not real.all():
            slots, rest = slots[real], tuple(array[real] for array in rest)
        if not len(slots):
            return None
        reading, times, values, breaks, quantiles, anomalies, drifts = rest
        known, steps = table.latest.begun[slots], table.timelines.pace(slots)
        directory = table.directory
        names = np.array([directory.names[slot] for slot in slots.tolist()], np.object_)
        values = values.reshape(len(slots), *table.layout.each)
        owners = names, directory.ids[slots]
        said = quantiles, anomalies, drifts
        result = StepResult(slots, *owners, reading, times, values, steps, breaks, *said, known)
        table.latest.keep(result)
        return result

    def _deliver(
        self,
        result: StepResult,
        works: list[Work],
        whose: NDArray[np.intp],
        own: NDArray[np.intp],
        asked: NDArray[np.bool_],
    ) -> None:
        """To each work that asked, its own part."""
        if not asked.any():
            return
        owners = whose[result.at]
        for owner in np.unique(owners[asked[owners]]):
            mine = owners == owner
            rows = {name: getattr(result, name)[mine] for name in StepResult.__slots__}
            rows["at"] = own[rows["at"]]
            _hand_over(works[owner].deliver, StepResult(**rows))


class _Columns(NamedTuple):
    """Readings of works that are run as one, [N]. ``values`` [N, C]. ``whose``: of which work; ``own``: where there."""

    slots: Slots
    generations: NDArray[np.int64]
    times: Floats
    values: Floats
    stamped: NDArray[np.bool_]
    whose: NDArray[np.intp]
    own: NDArray[np.intp]


class _Chunk(NamedTuple):
    """One step of N streams that are all different, ``values`` [N, C]. ``gap``: it is a masked one. ``reading``: which
    of the columns."""

    slots: Slots
    generations: NDArray[np.int64]
    times: Floats
    values: Floats
    gap: NDArray[np.bool_]
    breaks: NDArray[np.uint8]
    reading: NDArray[np.intp]


def _columns(works: list[Work]) -> _Columns:
    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(work, name) for work in works])

    slots, counts = column("slots"), [len(work.slots) for work in works]
    return _Columns(
        slots,
        column("generations"),
        column("times"),
        column("values").reshape(len(slots), -1),
        column("stamped"),
        np.repeat(np.arange(len(works)), counts),
        np.concatenate([np.arange(count) for count in counts]),
    )


def _hand_over(receiver: Callable[[Any], None] | None, result: Any) -> None:
    """A receiver that fails costs itself its result, and nobody else anything."""
    try:
        if receiver is not None:
            receiver(result)
    except Exception:
        log.exception("a result of sensors could not be handed over")


def _together(taken: list[Work]) -> list[list[Work]]:
    """Work that may be run as one, in order: a call is alone."""
    found: list[list[Work]] = []
    for work in taken:
        if work.call is None and found and found[-1][0].call is None:
            found[-1].append(work)
        else:
            found.append([work])
    return found
