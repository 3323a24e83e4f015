"""Sockets whose handshake has to wait. Over a real pair of sockets; the clock of the share is the test's own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bench.attack.clients import BINARY, UPGRADE, frame
from streamer.metrics import Metrics
from streamer.serve.access.gate import Access
from streamer.serve.handshakes import Handshakes
from streamer.serve.turns import Turns
from streamer.serve.websocket import MOST_BEFORE, Socket
from streamer.settings import Settings
from tests.serve.own_time import Time


class Wire:
    """A daemon's end of a connection whose handshake has to wait until :meth:`Time.run`."""

    def __init__(self, patience: float = 60.0) -> None:
        self.time = Time()
        self.handshakes = Handshakes(self.time, 8, patience, clock=self.time)  # type: ignore[arg-type]
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
                handshakes=self.handshakes,
                max_frame_bytes=2**20,
                ping_seconds=60,
                send_seconds=60,
                linger_seconds=1,
            )

        transport, wire = await loop.create_connection(make, sock=there)
        self.handshakes.spend(1.0)  # as if others had come
        return here, transport, wire


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def over_a_socket(
    test: Callable[[Wire, socket.socket, Socket], Coroutine[Any, Any, None]], patience: float = 60.0
) -> None:
    async def go() -> None:
        here = Wire(patience)
        client, transport, wire = await here.connect()
        try:
            await test(here, client, wire)
        finally:
            transport.abort()
            client.close()
            await asyncio.sleep(0)

    asyncio.run(go())


async def read(client: socket.socket) -> bytes:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(client, 65536)


def test_bytes_behind_a_request_that_waits_are_handled_after_it() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(UPGRADE % b"/" + frame(BINARY, b"early"))
        await until(lambda: len(here.handshakes) == 1)
        wire.data_received(frame(BINARY, b"later"))
        assert here.peers == []
        here.time.run()
        assert here.peers == [wire]
        assert here.got == [b"early", b"later"]
        assert (await read(client)).startswith(b"HTTP/1.1 101")
        client.sendall(frame(BINARY, b"last"))
        await until(lambda: here.got[-1] == b"last")

    over_a_socket(test)


def test_no_more_is_read_than_a_bound_until_the_request_is_answered() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        early = [bytes([number]) * 4000 for number in range(100)]
        sending = asyncio.get_running_loop().sock_sendall(
            client, UPGRADE % b"/" + b"".join(frame(BINARY, each) for each in early)
        )
        task = asyncio.create_task(sending)
        await until(lambda: not wire._reading)
        assert len(wire._late) < 300_000
        here.time.run()
        await until(lambda: len(here.got) == 100)
        await task
        assert here.got == early
        assert wire._reading

    over_a_socket(test)


def test_a_request_in_pieces_waits_once_it_is_whole() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        request = UPGRADE % b"/"
        client.sendall(request[:-2])
        await until(lambda: len(wire._late) == len(request) - 2)
        assert len(here.handshakes) == 0
        client.sendall(request[-2:])
        await until(lambda: len(here.handshakes) == 1)
        here.time.run()
        assert here.peers == [wire]

    over_a_socket(test)


def test_a_request_without_end_is_dropped() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(b"GET /" + b"x" * 2 * MOST_BEFORE)
        await until(lambda: wire.closing)
        assert len(here.handshakes) == 0

    over_a_socket(test)


def test_a_client_that_leaves_before_its_turn_is_forgotten() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.handshakes) == 1)
        client.close()
        await until(lambda: len(here.handshakes) == 0)
        here.time.run()
        assert here.peers == []

    over_a_socket(test)


def test_a_handshake_that_fails_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Socket, request: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Socket, "_handshake", fail)

    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.handshakes) == 1)
        here.time.run()
        await until(lambda: wire.closing)

    over_a_socket(test)


def test_a_refused_one_is_told_when_to_come_back() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.handshakes) == 1)
        here.time.now += 7.0
        here.time.run()
        answer = await read(client)
        assert answer.startswith(b"HTTP/1.1 503")
        assert 5 <= int(answer.lower().partition(b"retry-after: ")[2].partition(b"\r")[0]) <= 10
        assert b"handshake_seconds" in answer
        assert here.peers == []
        await until(lambda: wire.closing)

    over_a_socket(test, patience=5.0)


def test_one_that_waits_when_the_daemon_goes_down_is_told_so() -> None:
    async def test(here: Wire, client: socket.socket, wire: Socket) -> None:
        client.sendall(UPGRADE % b"/")
        await until(lambda: len(here.handshakes) == 1)
        wire.shutdown()
        answer = await read(client)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"restarts" in answer
        assert len(here.handshakes) == 0
        here.time.run()
        assert here.peers == []

    over_a_socket(test)
