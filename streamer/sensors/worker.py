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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.denormals import flush_denormals
from streamer.sensors.columns import StepResult
from streamer.sensors.runner import Runner
from streamer.sensors.table import SensorTable
from streamer.sensors.timeline import WHOLE, phases

__all__ = ["Lane", "Work"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]
#: Readings that a lane takes at a time, at least one piece of work: between two takes it can be copied.
TAKE = 4096
#: Readings whose forecasts are scored and given away together: a reading waits for that many, at most.
TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Work:
    """Readings of slots of one lane. ``seq``: of the journal's record that holds them. ``call`` runs instead."""

    slots: Slots
    times: Floats
    values: Floats
    stamped: NDArray[np.bool_]
    seq: int
    #: Gets what was run, in parts, and ``None`` at the end.
    deliver: Callable[[StepResult | None], None] | None = None
    call: Callable[[], None] | None = None

    @classmethod
    def calling(cls, call: Callable[[], None]) -> Work:
        """No readings."""
        nothing = np.zeros(0)
        return cls(nothing.astype(np.intp), nothing, nothing, nothing.astype(np.bool_), 0, call=call)


class Lane(threading.Thread):
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
                try:
                    with self.lock:
                        if works[0].call is not None:
                            with self.rows:
                                works[0].call()
                        else:
                            self._run(works, runner)
                except Exception:  # whatever it is, it is this work's problem and not the next one's
                    log.exception("readings could not be run")
                    self._table.metrics.failed_batches.inc()
                finally:
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

    def _run(self, works: list[Work], runner: Runner) -> None:
        table = self._table
        slots = np.concatenate([work.slots for work in works])
        times = np.concatenate([work.times for work in works])
        values = np.concatenate([work.values for work in works]).reshape(len(slots), -1)  # [N, C]
        stamped = np.concatenate([work.stamped for work in works])
        whose = np.repeat(np.arange(len(works)), [len(work.slots) for work in works])
        own = np.concatenate([np.arange(len(work.slots)) for work in works])
        asked = np.array([work.deliver is not None for work in works])

        order = np.argsort(slots, kind="stable")
        streams, first, count = np.unique(slots[order], return_index=True, return_counts=True)
        at, end = first.copy(), first + count  # of every stream: its next reading, in `order`
        masked = np.zeros(len(streams), np.int64)
        breaks = np.zeros(len(streams), np.uint8)
        placed = np.zeros(len(streams), np.bool_)  # its next reading has been looked at
        while len(live := np.flatnonzero(at < end)):
            new = live[~placed[live]]
            if len(new):
                with self.rows:
                    found = table.timelines.place(streams[new], times[order[at[new]]], stamped[order[at[new]]])
                masked[new], breaks[new] = found.masked, found.breaks
                placed[new] = found.taken
                at[new] += ~found.taken
                if not found.taken.all():
                    continue
            step = table.timelines.step[streams[live]]
            gap = masked[live] > 0
            reading = order[at[live]]
            then = np.where(gap, times[reading] - masked[live] * np.where(gap, step, 0.0), times[reading])
            value = values[reading]
            value[gap] = np.nan
            for begin in range(0, len(live), TOGETHER):
                part = slice(begin, begin + TOGETHER)
                result = self._step(
                    runner, streams[live[part]], then[part], value[part], gap[part], breaks[live[part]], reading[part]
                )
                self._deliver(result, works, whose, own, asked)
                self._since = monotonic()
            masked[live] -= gap
            done = live[~gap]
            at[done] += 1
            placed[done] = False
        for work in works:
            table.applied[work.slots] = work.seq

    def _step(
        self,
        runner: Runner,
        slots: Slots,
        times: Floats,
        values: Floats,
        gap: NDArray[np.bool_],
        breaks: NDArray[np.uint8],
        reading: NDArray[np.intp],
    ) -> StepResult | None:
        """One step of streams that are all different, ``values`` [N, C]. ``gap``: it is a masked one."""
        begin, table = perf_counter(), self._table
        there, count = ~np.isnan(values), values.shape[1]
        rows = np.empty((len(slots), 1, 2 * count + 2), np.float32)
        rows[:, 0, :count], rows[:, 0, count:-2] = np.where(there, values, 0.0), there
        rows[:, 0, -2], rows[:, 0, -1] = phases(times)
        values = values[:, table.layout.chosen]  # from here on those of the targets
        good, *said = runner(slots, rows)
        run = perf_counter()
        with self.rows:
            if not good.all():
                table.track.forget(table.tracks(slots[~good]))
                slots, times, values, gap = slots[good], times[good], values[good], gap[good]
                breaks, reading = breaks[good], reading[good]
                said = [array[good] for array in said]
            self._score(slots, values, ~gap & (breaks != WHOLE), said[0])
            scored = perf_counter()
            result = self._keep(~gap, slots, reading, times, values, breaks, *said)
        if result is not None:
            for watcher in table.watchers:
                _hand_over(watcher, result)
        table.metrics.steps.inc(len(slots))
        table.metrics.chunks.inc(len(slots))
        table.metrics.decode_seconds.observe(scored - run)
        table.metrics.busy_seconds.inc(perf_counter() - begin)
        return result

    def _score(self, slots: Slots, values: Floats, broken: NDArray[np.bool_], quantiles: NDArray[np.float32]) -> None:
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
        result: StepResult | None,
        works: list[Work],
        whose: NDArray[np.intp],
        own: NDArray[np.intp],
        asked: NDArray[np.bool_],
    ) -> None:
        """To each work that asked, its own part."""
        if result is None or not asked.any():
            return
        owners = whose[result.at]
        for owner in np.unique(owners[asked[owners]]):
            mine = owners == owner
            rows = {name: getattr(result, name)[mine] for name in StepResult.__slots__}
            rows["at"] = own[rows["at"]]
            _hand_over(works[owner].deliver, StepResult(**rows))


def _hand_over(receiver: Callable[[Any], None] | None, result: StepResult | None) -> None:
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
