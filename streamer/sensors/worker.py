"""A lane: a thread that owns some of the slots and runs their readings, all that wait at once.

A stream belongs to one lane for good, so its readings stay in order without locks. Readings of one stream are run one
after another, in rounds; a round holds one of each stream that has any. A gap's masked steps are rounds, too.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics
from streamer.sensors.latest import Latest
from streamer.sensors.runner import Runner
from streamer.sensors.scores import Track
from streamer.sensors.timeline import WHOLE, Clocks, phases

__all__ = ["Lane", "Ran", "Room", "Work"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]
Floats = NDArray[np.float64]
#: Readings that a lane takes at a time, at least one piece of work: between two takes it can be copied.
TAKE = 4096
#: Readings whose forecasts are scored and given away together: a reading waits for that many, at most.
TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Ran:
    """Readings that were just run, all of different streams. ``at``: which of their work's they were, ``breaks`` as in
    :mod:`streamer.sensors.timeline`. The arrays are the receiver's."""

    slots: Slots
    at: NDArray[np.intp]
    times: Floats
    values: Floats
    steps: Floats
    breaks: NDArray[np.uint8]
    quantiles: NDArray[np.float32]
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]
    known: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Work:
    """Readings of slots of one lane. ``seq``: of the journal's record that holds them. ``call`` runs instead."""

    slots: Slots
    times: Floats
    values: Floats
    seq: int
    #: Gets what was run, in parts, and ``None`` at the end.
    tell: Callable[[Ran | None], None] | None = None
    call: Callable[[], None] | None = None


class Watcher(Protocol):
    def __call__(self, ran: Ran) -> None:
        """Readings were run. Called by lanes; must be quick and must not raise."""


@dataclass(slots=True)
class Room:
    """What all lanes share: the model, and everything that is kept of streams, by slot."""

    model: Model
    arena: Arena
    clocks: Clocks
    track: Track
    latest: Latest
    metrics: ModelMetrics
    limit: int
    #: The last record of the journal that was run, by slot.
    applied: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    watchers: tuple[Watcher, ...] = ()

    #: Counts of streams that are gone, so that the sums over all never fall.
    gone: Counter[str] = field(default_factory=Counter)

    def clear(self, slot: int) -> None:
        self.gone.update({name: int(counts[slot]) for name, counts in self.clocks.counts.items()})
        self.gone["readings"] += int(self.latest.readings[slot])
        self.arena.renew(slot)
        for part in (self.clocks, self.track, self.latest):
            part.clear(slot)
        self.applied[slot] = 0


class Lane(threading.Thread):
    """``done`` is told how many readings were just run.

    Whoever holds ``lock`` finds the lane's slots between two pieces of work, and may wait as long as one takes: for
    those who save. Whoever holds ``rows`` finds what was said of a stream last, at once, and the lane waits meanwhile:
    for those who look.
    """

    def __init__(self, room: Room, name: str, done: Callable[[int], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._room, self._done = room, done
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
        room = self._room
        runner = Runner(room.model, room.arena, room.metrics, room.limit)
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
                    self._room.metrics.failed_batches.inc()
                finally:
                    for work in works:
                        if work.tell is not None:
                            work.tell(None)
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
        room = self._room
        slots = np.concatenate([work.slots for work in works])
        times = np.concatenate([work.times for work in works])
        values = np.concatenate([work.values for work in works])
        whose = np.repeat(np.arange(len(works)), [len(work.slots) for work in works])
        own = np.concatenate([np.arange(len(work.slots)) for work in works])
        asked = np.array([work.tell is not None for work in works])

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
                    found = room.clocks.place(streams[new], times[order[at[new]]])
                masked[new], breaks[new] = found.masked, found.breaks
                placed[new] = found.taken
                at[new] += ~found.taken
                if not found.taken.all():
                    continue
            step = room.clocks.step[streams[live]]
            gap = masked[live] > 0
            reading = order[at[live]]
            then = np.where(gap, times[reading] - masked[live] * np.where(gap, step, 0.0), times[reading])
            value = np.where(gap, np.nan, values[reading])
            for begin in range(0, len(live), TOGETHER):
                part = slice(begin, begin + TOGETHER)
                ran = self._step(
                    runner, streams[live[part]], then[part], value[part], gap[part], breaks[live[part]], reading[part]
                )
                self._tell(ran, works, whose, own, asked)
                self._since = monotonic()
            masked[live] -= gap
            done = live[~gap]
            at[done] += 1
            placed[done] = False
        for work in works:
            room.applied[work.slots] = work.seq

    def _step(
        self,
        runner: Runner,
        slots: Slots,
        times: Floats,
        values: Floats,
        gap: NDArray[np.bool_],
        breaks: NDArray[np.uint8],
        reading: NDArray[np.intp],
    ) -> Ran | None:
        """One step of streams that are all different. ``gap``: it is a masked one."""
        begin, room = perf_counter(), self._room
        there = ~np.isnan(values)
        rows = np.empty((len(slots), 1, 4), np.float32)
        rows[:, 0, 0], rows[:, 0, 1] = np.where(there, values, 0.0), there
        rows[:, 0, 2], rows[:, 0, 3] = phases(times)
        good, *said = runner(slots, rows)
        ran = perf_counter()
        with self.rows:
            if not good.all():
                room.track.forget(slots[~good])
                slots, times, values, gap = slots[good], times[good], values[good], gap[good]
                breaks, reading = breaks[good], reading[good]
                said = [array[good] for array in said]
            self._score(slots, values, ~gap & (breaks != WHOLE), said[0])
            scored = perf_counter()
            result = self._keep(~gap, slots, reading, times, values, breaks, *said)
        if result is not None:
            for watcher in room.watchers:
                watcher(result)
        room.metrics.steps.inc(len(slots))
        room.metrics.chunks.inc(len(slots))
        room.metrics.decode_seconds.observe(scored - ran)
        room.metrics.busy_seconds.inc(perf_counter() - begin)
        return result

    def _score(self, slots: Slots, values: Floats, broken: NDArray[np.bool_], quantiles: NDArray[np.float32]) -> None:
        """``broken``: what was said before does not reach across to this reading."""
        room = self._room
        step = room.clocks.step[slots]
        seasons = np.where(step > 0, np.rint(86400 / np.where(step > 0, step, 1.0)), 0).clip(0, 2**31).astype(np.int64)
        if broken.any():
            room.track.forget(slots[broken])
        room.track.truth(slots, values, seasons)
        there = ~np.isnan(values)
        room.latest.begun[slots] |= there
        if there.all():
            room.track.said(slots, quantiles, values)
        elif there.any():
            room.track.said(slots[there], quantiles[there], values[there])

    def _keep(self, real: NDArray[np.bool_], slots: Slots, *rest: NDArray[Any]) -> Ran | None:
        """What is to be told: of readings, not of a gap's masked steps."""
        room = self._room
        if not real.all():
            slots, rest = slots[real], tuple(array[real] for array in rest)
        if not len(slots):
            return None
        reading, times, values, breaks, quantiles, anomalies, drifts = rest
        known, steps = room.latest.begun[slots], room.clocks.pace(slots)
        result = Ran(slots, reading, times, values, steps, breaks, quantiles, anomalies, drifts, known)
        room.latest.keep(slots, result)
        return result

    def _tell(
        self,
        ran: Ran | None,
        works: list[Work],
        whose: NDArray[np.intp],
        own: NDArray[np.intp],
        asked: NDArray[np.bool_],
    ) -> None:
        """To each work that asked, its own part."""
        if ran is None or not asked.any():
            return
        owners = whose[ran.at]
        for owner in np.unique(owners[asked[owners]]):
            mine = owners == owner
            rows = {name: getattr(ran, name)[mine] for name in Ran.__slots__}
            rows["at"] = own[rows["at"]]
            tell = works[owner].tell
            assert tell is not None
            tell(Ran(**rows))


def _together(taken: list[Work]) -> list[list[Work]]:
    """Work that may be run as one, in order: a call is alone."""
    found: list[list[Work]] = []
    for work in taken:
        if work.call is None and found and found[-1][0].call is None:
            found[-1].append(work)
        else:
            found.append([work])
    return found
