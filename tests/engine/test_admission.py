"""Admission and order together, on a clock of the test's own: a lane whose batches cost what the test says, live
streams by the hundred that want in, and what those that were let in then waited for.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamer.engine.load import Load
from streamer.engine.ready import ReadyQueue
from streamer.settings import Settings
from streamer.streams.headroom import Headroom
from streamer.streams.pace import Pace

CHUNK, LIMIT = 0.32, 32


class Stream:
    """Live; ``file``: it brings ten seconds at once, and a chunk for each that was run."""

    model, state, sink = "toy", "active", print

    def __init__(self, now: float, file: bool = False) -> None:
        self.begun = self.last_input = now
        self.file, self.pace = file, Pace(CHUNK)
        self.waiting: list[float] = []
        self.lags: list[tuple[float, float]] = []
        self.deadline, self.heard, self.queued = 0.0, True, False

    @property
    def buffered_rows(self) -> int:
        return len(self.waiting)


class Machine:
    """One lane. A batch of n takes ``cost(n)`` seconds; at start it was thought to take ``foreseen`` times that."""

    def __init__(self, cost: Callable[[int], float], foreseen: float = 0.5) -> None:
        self.now, self.cost, self.rng = 100.0, cost, np.random.default_rng(0)
        self.load = Load(1, LIMIT, CHUNK, lambda: self.now)
        self.load.parallel = 1
        self.load.expect([(1, foreseen * cost(1)), (LIMIT, foreseen * cost(LIMIT))])
        self.queue: ReadyQueue[Stream] = ReadyQueue()
        self.streams: list[Stream] = []
        manifest = SimpleNamespace(name="toy", chunk_seconds=CHUNK)
        arena = SimpleNamespace(used=0)
        self.engine: Any = SimpleNamespace(load=self.load, manifest=manifest, arena=arena, waited=self.waited)
        table: Any = SimpleNamespace(all=lambda: self.streams)
        self.headroom = Headroom({"toy": self.engine}, table, Settings(), clock=lambda: self.now)
        self.load.allowed = self.headroom.allowed(self.engine)
        self.refused: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number, self._busy = 0, False

    def waited(self) -> float:
        return max(0.0, self.now - self.queue.earliest)

    def at(self, when: float, call: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, call))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, call = heapq.heappop(self._events)
            call()
        self.now = end

    # -- streams -------------------------------------------------------------------------------------------------------

    def want(self, file: bool = False, again: bool = True) -> None:
        """A client comes; it comes again when it is told to."""
        if (lack := self.headroom.lack(self.engine)) is not None:
            why, after = lack
            self.refused[why.partition(" ")[0]] += 1
            if again:
                self.at(self.now + after, lambda: self.want(file))
            return
        stream = Stream(self.now, file)
        self.streams.append(stream)
        self.engine.arena.used = len(self.streams)
        if file:
            for _ in range(round(10 / CHUNK)):
                self._bring(stream)
        else:
            self.at(self.now + self.rng.random() * CHUNK, lambda: self._say(stream))

    def leave(self, keep: int) -> None:
        for stream in self.streams[keep:]:
            stream.state, stream.heard = "gone", False
            if stream in self.queue._entries:
                self.queue.push(stream, stream.deadline)
        del self.streams[keep:]
        self.engine.arena.used = len(self.streams)

    def _say(self, stream: Stream) -> None:
        if stream.state == "active":
            self._bring(stream)
            self.at(self.now + CHUNK, lambda: self._say(stream))

    def _bring(self, stream: Stream) -> None:
        stream.last_input = self.now
        stream.waiting.append(stream.pace.due(self.now))
        self._ready(stream)

    def _ready(self, stream: Stream) -> None:
        if stream.waiting and not stream.queued:
            stream.queued, stream.deadline = True, stream.waiting[0]
            self.queue.push(stream, stream.deadline)
            self._take()

    # -- the lane ------------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        if self._busy or not len(self.queue):
            return
        batch = [self.queue.pop() for _ in range(min(LIMIT, len(self.queue)))]
        seconds = self.cost(len(batch)) * self.rng.uniform(0.9, 1.1)
        self._busy = True
        self.at(self.now + seconds, lambda: self._done(batch, seconds))

    def _done(self, batch: list[Stream], seconds: float) -> None:
        self._busy = False
        self.load.batch(len(batch), seconds)
        for stream in batch:
            due = stream.waiting.pop(0)
            lag = max(0.0, self.now - due)
            stream.queued = False
            if stream.heard:
                stream.lags.append((self.now, lag))
                self.load.ran(lag)
            if stream.file and stream.state == "active":
                self._bring(stream)
            self._ready(stream)
        self._take()

    def p99(self, seconds: float, file: bool = False) -> float:
        """Of those that are in, over the last seconds; what waits still counts with what it has waited."""
        begin = self.now - seconds
        mine = [stream for stream in self.streams if stream.file is file]
        lags = [lag for stream in mine for at, lag in stream.lags if at >= begin]
        lags += [max(0.0, self.now - due) for stream in mine for due in stream.waiting]
        return float(np.percentile(lags, 99)) if lags else 0.0


def fits(cost: Callable[[int], float]) -> int:
    """Streams whose chunks the lane can run at all, in batches that leave a chunk's time for all of them."""
    return max(round(CHUNK / cost(n) * n) for n in range(1, LIMIT + 1) if cost(n) < CHUNK)


COSTS: dict[str, Callable[[int], float]] = {
    "batching pays": lambda n: 0.010 + 0.001 * n,
    "batching pays little": lambda n: 0.0005 + 0.004 * n,
    "batches are expensive": lambda n: 0.060 + 0.002 * n,
}
costly = pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)


@costly
@pytest.mark.parametrize("foreseen", [0.3, 1.0])
@pytest.mark.parametrize("times", [1.5, 3.0])
def test_those_that_are_let_in_keep_up_and_the_machine_is_used(
    cost: Callable[[int], float], foreseen: float, times: float
) -> None:
    machine, most = Machine(cost, foreseen), fits(cost)
    for _ in range(round(times * most)):  # all at once
        machine.want()
    machine.run(40)
    assert machine.refused
    assert machine.p99(30) <= CHUNK
    assert len(machine.streams) >= 0.5 * most


def test_what_is_taken_of_the_machine_grows_with_the_streams() -> None:
    machine = Machine(COSTS["batching pays little"])
    assert machine.headroom.taken() == 0
    machine.want(again=False)
    machine.run(5)
    few = machine.headroom.taken()
    assert 0 < few < 0.5
    for _ in range(40):
        machine.want(again=False)
        machine.run(1)
    assert few < machine.headroom.taken() <= 1
    machine.leave(0)
    machine.run(5)
    assert machine.headroom.taken() == 0


@costly
def test_four_times_as_many_beside_those_that_are_there(cost: Callable[[int], float]) -> None:
    machine, most = Machine(cost), fits(cost)
    for _ in range(most // 3):
        machine.want(again=False)
    machine.run(10)
    there = len(machine.streams)
    for _ in range(4 * most // 3):
        machine.want()
    machine.run(20)
    assert machine.p99(20) <= CHUNK
    assert len(machine.streams) > there
    machine.leave(there)
    machine.run(3)
    assert machine.p99(1) <= CHUNK / 2


@costly
def test_files_get_what_live_streams_leave(cost: Callable[[int], float]) -> None:
    machine, most = Machine(cost), fits(cost)
    for _ in range(most // 3):
        machine.want(again=False)
    machine.run(5)
    live = len(machine.streams)
    for _ in range(4):
        machine.want(file=True)
    machine.run(20)
    files = [stream for stream in machine.streams if stream.file]
    assert len(files) == 4
    ran = [sum(at >= machine.now - 10 for at, _ in stream.lags) * CHUNK / 10 for stream in files]
    assert min(ran) > 2  # times real time
    assert max(ran) < 1.5 * min(ran) + 1
    assert machine.p99(10) <= CHUNK
    assert live == len(machine.streams) - 4


def test_what_nobody_listens_to_keeps_nobody_waiting() -> None:
    machine = Machine(COSTS["batching pays little"])
    for _ in range(20):
        machine.want(again=False)
    there = len(machine.streams)
    for _ in range(60):  # let in by hand, each with ten seconds, and gone
        stream = Stream(machine.now)
        machine.streams.append(stream)
        for _ in range(30):
            machine._bring(stream)
    machine.leave(there)
    machine.run(5)
    assert machine.p99(4) <= CHUNK
    assert any(not stream.heard for stream in machine.queue)  # it is still there, behind all others
    machine.run(60)
    assert not any(not stream.heard for stream in machine.queue)


def test_a_stream_that_is_alone_is_let_in_however_late_the_last_ones_were() -> None:
    machine = Machine(lambda n: 0.01)
    machine.want()
    for _ in range(10):
        machine.load.ran(machine.load.allowed + 1)
    assert "late" in machine.headroom.lack(machine.engine)[0]  # type: ignore[index]
    machine.leave(0)
    assert machine.load.late()
    assert machine.headroom.lack(machine.engine) is None
