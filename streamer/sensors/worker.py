"""A lane: a thread that owns some of the slots and runs their waiting readings.

A stream always belongs to the same lane, so its readings stay in order without locks. Readings of one stream are run
one after another, in rounds; a round holds one step of each stream with readings. A gap's masked steps are rounds, too.
Readings that arrive meanwhile join the next round, so a reading waits for one round and for its stream's earlier ones.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.engine.denormals import flush_denormals
from streamer.sensors.backlog import Backlog, QueuedReadings, Work
from streamer.sensors.columns import StepResult
from streamer.sensors.runner import Runner
from streamer.sensors.table import SensorTable
from streamer.sensors.timeline import WHOLE, phases
from streamer.sensors.turn_lock import TurnLock
from streamer.tracing import Attribute, tracer

__all__ = ["SensorLane"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]
#: Readings that a lane takes at a time, but at least one work.
TAKE = 4096
#: Bounds of a piece: at most this many rounds, and no further round after this many steps of all streams together, or
#: when readings arrive. Between two pieces the lane's slots can be copied.
ROUNDS, STEPS = 16, 1024
#: Seconds after which a piece counts for a third in the rate of readings.
RECENT = 2.0
#: Readings whose forecasts are scored and delivered together: the bound on how many a reading waits for.
TOGETHER = 256


class SensorLane(threading.Thread):
    """``done`` is called with the slots of readings that were just run, one for each.

    Two locks guard the lane's slots. The lane holds ``lock`` while it runs a piece: the saver takes it in its turn,
    between two of them. The lane holds ``rows`` for a moment after each step: readers of the latest results take it.
    ``lock`` is taken before ``rows``.
    """

    def __init__(self, table: SensorTable, name: str, done: Callable[[Slots], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._table, self._done = table, done
        #: Of the lane's thread; under ``lock`` it may be replaced.
        self.runner = Runner(table.model, table.arena, table.metrics, table.limit)
        self.lock = TurnLock()
        self.rows = threading.Lock()
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._since: float | None = None  # when the present work was taken, or its last step ended
        #: Readings a second in pieces with full batches, as measured recently, with the time of their missing steps and
        #: of all else that the lane does; 0: not measured.
        self.rate = 0.0
        self._ran = self._seconds = 0.0  # of these pieces; older ones count for less
        self._measured = 0.0  # when the last piece ended, or, after a pause, when there was work again
        self._oldest: float | None = None  # when the oldest unfinished work was taken

    # -- from outside --------------------------------------------------------------------------------------------------

    def put(self, work: Work) -> None:
        with self._changed:
            self._queue.append(work)
            self._changed.notify_all()

    def close(self) -> None:
        """Stop the lane; waiting readings are not run."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until all readings are run; False if it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and self._since is None, timeout)

    def stalled(self) -> float:
        """Seconds that the present step of the present work has taken."""
        since = self._since
        return 0.0 if since is None else monotonic() - since

    def waited(self) -> float:
        """Seconds that the oldest reading has waited to be run."""
        oldest = self._oldest
        return 0.0 if oldest is None else monotonic() - oldest

    # -- the thread ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        flush_denormals()
        self._measured = monotonic()  # readings of the last run may wait already
        table = self._table
        backlog = Backlog(len(table.applied))
        while (taken := self._take(backlog)) is not None:
            with self.lock:
                gone = [self._add(work, backlog) for work in taken]
                piece, begin, oldest = backlog.piece(), monotonic(), backlog.since
                if piece is not None:
                    gone.append(self._run(piece, backlog, self.runner))
                    self._trace(piece, gone[-1], oldest or begin, begin)
            self._done(np.concatenate([np.zeros(0, np.intp), *(rows.slots for rows in gone if rows)]))
            for work in backlog.settle(np.concatenate([np.zeros(0, np.int64), *(rows.whose for rows in gone if rows)])):
                _hand_over(work.deliver, None)
            with self._changed:
                self._oldest = backlog.since
                if not backlog:
                    self._since = None
                self._changed.notify_all()
        self._since = None  # the lane was closed, so it does not count as stuck

    def _trace(self, piece: QueuedReadings, done: QueuedReadings | None, oldest: float, begin: float) -> None:
        """Trace a share of the pieces. ``oldest``: when the oldest waiting work was taken."""
        if (spans := tracer()) is not None and spans.chosen(len(piece.slots)) is not None:
            what: dict[str, Attribute] = {
                "streamer.model": self._table.model.manifest.name,
                "streamer.readings": len(piece.slots),
                "streamer.done": 0 if done is None else len(done.slots),
            }
            spans.past("readings", None, min(oldest, begin), [("queue", begin), ("run", monotonic())], what)

    def _take(self, backlog: Backlog) -> list[Work] | None:
        """The queued works, up to ``TAKE`` readings; waits if there is nothing else to run. ``None``: the lane
        stops."""
        with self._changed:
            paused = False
            while not self._queue and not backlog and not self._closed:
                paused = self._changed.wait()
            if self._closed:
                return None
            self._since = monotonic()
            if paused:
                self._measured = self._since
            taken, count = [], 0
            while self._queue and count < TAKE:
                count += len(self._queue[0].slots)
                taken.append(self._queue.popleft())
            return taken

    def _add(self, work: Work, backlog: Backlog) -> QueuedReadings | None:
        """Add a work to the backlog, or carry out its call; returns readings that are dropped by that, ``None``:
        none."""
        if work.call is None:
            try:
                backlog.add(work)
            except Exception:
                log.exception("work of sensors failed")
                self._table.metrics.failed_batches.inc()
                self._table.metrics.failed_readings.inc(len(work.slots))
                _hand_over(work.fail, np.arange(len(work.slots)))
                _hand_over(work.deliver, None)
                self._done(work.slots)
            return None
        dropped = backlog.drop(work.slots)
        if dropped is not None:
            self._table.metrics.late_results.inc(len(dropped.slots))
        try:
            with self.rows:
                work.call()
        except Exception:
            log.exception("work of sensors failed")
            self._table.metrics.failed_batches.inc()
        return dropped

    def _run(self, piece: QueuedReadings, backlog: Backlog, runner: Runner) -> QueuedReadings:
        """Run some steps of each stream in ``piece``. Returns the readings that are finished; the others stay."""
        table, works = self._table, backlog.works
        current = table.arena.current_rows(piece.slots, piece.generations)
        late = piece.take(~current)
        if len(late.slots):
            table.metrics.late_results.inc(len(late.slots))
            piece = piece.take(current)
        slots, generations, times, values, stamped, _, _, whose, own = piece
        streams, first, count = np.unique(slots, return_index=True, return_counts=True)
        at, end = first.copy(), first + count  # each stream's next reading
        masked, breaks, placed = table.progress.of(streams)  # of the next reading, if it has been placed
        failed: list[int] = []
        left: list[tuple[NDArray[np.intp], NDArray[np.bool_]]] = []

        def place(rows: Slots) -> None:
            reading = at[rows]
            with self.rows:
                found = table.timelines.place(streams[rows], times[reading], stamped[reading])
            masked[rows], breaks[rows] = found.masked, found.breaks
            placed[rows] = found.taken
            if not found.taken.all():
                left.append((reading[~found.taken], found.late[~found.taken]))
            at[rows] += ~found.taken

        def step(rows: Slots) -> None:
            gap, reading = masked[rows] > 0, at[rows]
            pace = np.where(gap, table.timelines.step[streams[rows]], 0.0)
            then, value = times[reading] - masked[rows] * pace, values[reading]
            value[gap] = np.nan
            chunk = _Chunk(streams[rows], generations[reading], then, value, gap, breaks[rows], reading)
            failed.extend(self._step(runner, chunk, lambda result: self._deliver(result, works, whose, own)))
            advance(rows)

        def advance(rows: Slots) -> None:
            gap = masked[rows] > 0
            masked[rows] -= gap
            done = rows[~gap]
            at[done] += 1
            placed[done] = False

        def leave(row: Slots) -> None:
            if not masked[row].any():
                failed.extend(at[row].tolist())
            advance(row)

        steps = rounds = 0
        while len(live := np.flatnonzero(at < end)):
            self._apart(live[~placed[live]], place, leave)
            if not placed[live].all():  # some were left out: the next reading of their streams comes first
                continue
            for begin in range(0, len(live), TOGETHER):
                self._apart(live[begin : begin + TOGETHER], step, leave)
                self._since = monotonic()
            steps, rounds = steps + len(live), rounds + 1
            if steps >= STEPS or rounds == ROUNDS or self._queue or self._closed:
                break
        if failed:
            self._fail(works, whose[failed], own[failed])
        if left:
            rows, late_ones = (np.concatenate(parts) for parts in zip(*left, strict=True))
            for owner in np.unique(whose[rows]).tolist():
                mine = whose[rows] == owner
                _hand_over(works[owner].leave, (own[rows[mine]], late_ones[mine]))
        done = np.arange(len(slots)) < np.repeat(at, count)
        if steps and steps >= rounds * table.limit:
            self._measure(int(done.sum()))
        self._measured = monotonic()
        backlog.keep(piece.take(~done))
        table.ran(streams, first, at, piece.seq, piece.last)
        table.progress.keep(streams, masked, breaks, placed)
        return QueuedReadings.joined([piece.take(done), late])

    def _measure(self, readings: int) -> None:
        """Measure the rate at the end of a piece with full batches, in which ``readings`` were finished."""
        seconds = monotonic() - self._measured
        kept = math.exp(-seconds / RECENT)
        self._ran, self._seconds = kept * self._ran + readings, kept * self._seconds + seconds
        self.rate = max(self._ran, 1.0) / max(self._seconds, 1e-6)

    def _apart(self, rows: Slots, call: Callable[[Slots], None], leave: Callable[[Slots], None]) -> None:
        """Make ``call`` with all rows at once; if it fails, with each row alone. Rows that fail alone are skipped."""
        if not len(rows):
            return
        try:
            call(rows)
        except Exception:  # any error fails only the reading that causes it
            if len(rows) == 1:
                log.exception("a reading could not be run")
                self._table.metrics.failed_batches.inc()
                leave(rows)
                return
            for at in range(len(rows)):
                self._apart(rows[at : at + 1], call, leave)

    def _fail(self, works: dict[int, Work], whose: NDArray[np.int64], own: NDArray[np.intp]) -> None:
        """Count readings that failed, and report them to their works."""
        self._table.metrics.failed_readings.inc(len(own))
        for owner in np.unique(whose).tolist():
            _hand_over(works[owner].fail, np.sort(own[whose == owner]))

    def _step(self, runner: Runner, chunk: _Chunk, deliver: Callable[[StepResult], None]) -> list[int]:
        """Run one step of different streams; returns the readings that failed."""
        begin, table = perf_counter(), self._table
        slots, values, gap = chunk.slots, chunk.values, chunk.gap
        there, count = ~np.isnan(values), values.shape[1]
        inputs = np.empty((len(slots), 1, 2 * count + 2), runner.dtype)
        inputs[:, 0, :count], inputs[:, 0, count:-2] = np.where(there, values, 0.0), there
        inputs[:, 0, -2], inputs[:, 0, -1] = phases(chunk.times)
        chosen = values[:, table.layout.chosen]  # values of the targets
        found = runner(slots, chunk.generations, inputs)
        run = perf_counter()
        bad = found.failed.copy()

        def record(rows: Slots) -> None:
            real, whole = ~gap[rows], chunk.breaks[rows] != WHOLE
            said = found.quantiles[rows], found.anomalies[rows], found.drifts[rows]
            with self.rows:
                if len(rows) < len(good):  # a second try after a failure: the reading may be scored already
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
        """``values`` [N, K]. ``broken``: earlier forecasts do not apply to this reading."""
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
        """Keep the results of readings, not of a gap's masked steps."""
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
        table.history.keep(result)
        return result

    def _deliver(
        self,
        result: StepResult,
        works: dict[int, Work],
        whose: NDArray[np.int64],
        own: NDArray[np.intp],
    ) -> None:
        """Deliver each work's part of the results, if the work asked for them."""
        owners = whose[result.at]
        for owner in np.unique(owners).tolist():
            if (give := works[owner].deliver) is None:
                continue
            mine = owners == owner
            rows = {name: getattr(result, name)[mine] for name in StepResult.__slots__}
            rows["at"] = own[rows["at"]]
            _hand_over(give, StepResult(**rows))


class _Chunk(NamedTuple):
    """One step of N different streams, ``values`` [N, C]. ``gap``: a masked step. ``reading``: index in the columns."""

    slots: Slots
    generations: NDArray[np.int64]
    times: Floats
    values: Floats
    gap: NDArray[np.bool_]
    breaks: NDArray[np.uint8]
    reading: NDArray[np.intp]


def _hand_over(receiver: Callable[[Any], None] | None, result: Any) -> None:
    """Call a receiver. If it fails, only its own result is lost."""
    try:
        if receiver is not None:
            receiver(result)
    except Exception:
        log.exception("a result of sensors could not be handed over")
