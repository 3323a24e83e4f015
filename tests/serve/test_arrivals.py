"""New connections have a bounded share of the loop's time. The clock and the loop's timers are the test's own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bench.attack.clients import BINARY, UPGRADE, frame
from streamer.metrics import Metrics
from streamer.serve.access.gate import Access
from streamer.serve.arrivals import LEAST, LOOK, SAVED, Arrivals
from streamer.serve.turns import Turns
from streamer.serve.websocket import Socket
from streamer.settings import Settings

WORK = 0.002


class Time:
    """A clock that only work and :meth:`run` move, and the timers on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        assert delay >= 0
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), call))

    def run(self, seconds: float = 1e9) -> None:
        """Let time pass, at most until no timer is left."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            at, _, call = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            call()
        if seconds < 1e9:
            self.now = max(self.now, until)


class Newcomers:
    def __init__(self, most: int = 1000, patience: float = 60.0) -> None:
        self.time, self.refused, self.taken = Time(), 0, 1.0
        self.log: list[tuple[float, int, str | None]] = []
        self.arrivals = Arrivals(self.time, most, patience, self._refuse, lambda: self.taken, self.time)  # type: ignore[arg-type]

    def _refuse(self) -> None:
        self.refused += 1

    def come(self, count: int, work: float = WORK) -> None:
        for number in range(count):

            def arrive(refusal: str | None, number: int = number) -> None:
                self.log.append((self.time.now, number, refusal))
                self.time.now += work

            self.arrivals.wait(arrive)


def test_a_few_are_answered_at_once() -> None:
    here = Newcomers()
    here.come(5)
    assert [(number, refusal) for _, number, refusal in here.log] == [(i, None) for i in range(5)]
    assert len(here.arrivals) == 0


def test_of_many_each_waits_its_turn_and_others_have_the_rest_of_the_time() -> None:
    here = Newcomers()
    here.come(500)
    assert 0 < len(here.log) < 20
    assert len(here.arrivals) == 500 - len(here.log)
    here.time.run()
    assert [number for _, number, _ in here.log] == list(range(500))
    assert len(here.arrivals) == 0
    begins = [at for at, _, _ in here.log]
    for first, last in itertools.combinations(range(0, 500, 25), 2):
        took = WORK * (last - first)
        assert took <= LEAST * (begins[last] - begins[first]) + SAVED + WORK + 1e-9
    assert begins[-1] - begins[0] == pytest.approx((500 * WORK - SAVED) / LEAST, rel=0.05)


@pytest.mark.parametrize("taken", [0.0, 0.5, 1.0])
def test_the_fewer_streams_there_are_the_larger_is_the_share(taken: float) -> None:
    here = Newcomers()
    here.taken = taken
    here.come(1000)
    here.time.run()
    took = here.log[-1][0] - here.log[0][0]
    assert took == pytest.approx((1000 * WORK - SAVED) / (1 - (1 - LEAST) * taken), rel=0.05)


def test_the_share_follows_the_streams_while_connections_wait() -> None:
    here = Newcomers()
    here.taken = 0.0
    here.come(1000)
    here.time.run(0.5)
    before = len(here.log)
    assert before > 200
    here.taken = 1.0
    here.time.run(LOOK)
    before = len(here.log)
    here.time.run(1.0)
    assert len(here.log) - before <= LEAST / WORK + 2


def test_a_quiet_hour_saves_no_more_than_a_moment() -> None:
    here = Newcomers()
    here.come(500)
    here.time.run()
    here.time.run(3600.0)
    before = len(here.log)
    here.come(500)
    assert (len(here.log) - before) * WORK <= SAVED / (1 - LEAST) + WORK


def test_what_follows_a_handshake_counts() -> None:
    here = Newcomers()
    here.arrivals.spend(SAVED + 0.3)
    here.come(1)
    assert here.log == []
    here.time.run(0.29 / LEAST)
    assert here.log == []
    here.time.run(0.02 / LEAST)
    assert len(here.log) == 1


def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    here = Newcomers()

    def fail(refusal: str | None) -> None:
        here.time.now += SAVED
        raise RuntimeError("a broken client")

    here.come(2)
    here.arrivals.wait(fail)
    here.come(40)
    here.time.run()
    assert len(here.log) == 42
    assert len(here.arrivals) == 0


def test_those_that_are_too_many_or_wait_too_long_are_refused_with_a_reason_and_counted() -> None:
    here = Newcomers(most=50, patience=1.0)
    here.come(100, work=0.02)
    turned_away = [refusal for _, _, refusal in here.log if refusal]
    welcome = len(here.log) - len(turned_away)
    assert 1 <= welcome < 5
    assert len(turned_away) == 50 - welcome  # fifty wait
    assert "max_connections" in turned_away[0]
    here.time.run()
    late = [refusal for _, _, refusal in here.log if refusal][len(turned_away) :]
    assert late
    assert "handshake_seconds" in late[0]
    assert here.refused == len(turned_away) + len(late)
    assert len(here.log) == 100


class Wire:
    """A daemon's end of a connection whose handshake has to wait until :meth:`Time.run`."""

    def __init__(self) -> None:
        self.time = Time()
        self.arrivals = Arrivals(self.time, 8, 60.0, clock=self.time)  # type: ignore[arg-type]
        self.peers: list[Any] = []
        self.got: list[bytes] = []

    async def connect(self) -> tuple[socket.socket, asyncio.Transport, Socket]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)

        def peer(wire: Socket) -> Any:
            self.peers.append(wire)
            return SimpleNamespace(on_message=lambda data, text: self.got.append(data), on_closed=lambda code: None)

        def make() -> Socket:
            return Socket(
                config=None,
                server_state=SimpleNamespace(connections=set()),
                app_state={},
                access=Access(Settings(), Metrics(CollectorRegistry())),
                admit=lambda path: peer,
                turns=Turns(loop),
                arrivals=self.arrivals,
                max_frame_bytes=2**20,
                ping_seconds=60,
                send_seconds=60,
                linger_seconds=1,
            )

        transport, wire = await loop.create_connection(make, sock=there)
        self.arrivals.spend(1.0)  # as if others had come
        return here, transport, wire


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_bytes_behind_a_request_that_waits_are_handled_after_it() -> None:
    async def go() -> None:
        here = Wire()
        client, transport, wire = await here.connect()
        request = UPGRADE % b"/"
        client.sendall(request + frame(BINARY, b"early"))
        await until(lambda: len(here.arrivals) == 1)
        assert not wire._reading
        wire.data_received(frame(BINARY, b"later"))  # a read that was under way
        assert here.peers == []
        here.time.run()
        assert here.peers == [wire]
        assert here.got == [b"early", b"later"]
        assert wire._reading
        assert (await asyncio.get_running_loop().sock_recv(client, 100)).startswith(b"HTTP/1.1 101")
        transport.abort()
        client.close()

    asyncio.run(go())


def test_a_client_that_leaves_before_its_turn_costs_nothing_more() -> None:
    async def go() -> None:
        here = Wire()
        client, transport, wire = await here.connect()
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.arrivals) == 1)
        client.close()
        transport.abort()
        await until(lambda: wire.closing)
        here.time.run()
        assert here.peers == []
        assert len(here.arrivals) == 0

    asyncio.run(go())


def test_a_refused_one_is_told_when_to_come_back() -> None:
    async def go() -> None:
        here = Wire()
        here.arrivals._patience = 0.0
        client, transport, _ = await here.connect()
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.arrivals) == 1)
        here.time.run()
        answer = await asyncio.get_running_loop().sock_recv(client, 4096)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer.lower()
        assert b"handshake_seconds" in answer
        assert here.peers == []
        transport.abort()
        client.close()

    asyncio.run(go())
