"""A WebSocket's turns: what is worked off when, and when no more is read. Over a real pair of sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bench.attack.clients import BINARY, PING, PONG, UPGRADE, frame
from streamer.metrics import Metrics
from streamer.serve import websocket
from streamer.serve.access.gate import Access
from streamer.serve.handshakes import Handshakes
from streamer.serve.turns import Turns
from streamer.serve.websocket import Socket
from streamer.settings import Settings

PATIENCE = 20


class Echo:
    """Keeps what it is told. ``act`` is called with each message."""

    def __init__(self, wire: Socket) -> None:
        self.wire = wire
        self.got: list[bytes] = []
        self.act: Callable[[], None] = lambda: None

    def on_message(self, data: bytes, text: bool) -> None:
        self.got.append(data)
        self.act()

    def on_writable(self) -> None: ...
    def on_stalled(self) -> None: ...
    def on_closed(self, code: int) -> None: ...


class Pair:
    """``peer`` at the daemon's end, ``client`` at the other."""

    def __init__(self, client: socket.socket, wire: Socket, peer: Echo, turns: Turns) -> None:
        self.client, self.wire, self.peer, self.turns = client, wire, peer, turns

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def read(self, count: int) -> bytes:
        found = b""
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                found += await asyncio.get_running_loop().sock_recv(self.client, 65536)
        return found


def over_a_socket(test: Callable[[Pair], Coroutine[Any, Any, None]]) -> None:
    async def go() -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        here.setblocking(False)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        turns, peers, handshakes = Turns(loop), list[Echo](), Handshakes(loop, 8, 60)
        access = Access(Settings(), Metrics(CollectorRegistry()))

        def admit(path: str) -> Callable[[Socket], Echo]:
            def make(wire: Socket) -> Echo:
                peers.append(Echo(wire))
                return peers[-1]

            return make

        def make() -> Socket:
            server = SimpleNamespace(connections=set())
            bounds = {"max_frame_bytes": 2**20, "ping_seconds": 60, "send_seconds": 60, "linger_seconds": 1}
            return Socket(
                config=None,
                server_state=server,
                app_state={},
                access=access,
                admit=admit,
                turns=turns,
                handshakes=handshakes,
                **bounds,
            )  # type: ignore[arg-type]

        transport, wire = await loop.create_connection(make, sock=there)
        wire.data_received(UPGRADE % b"/")
        pair = Pair(here, wire, peers[0], turns)
        await pair.read(100)
        try:
            await test(pair)
        finally:
            transport.abort()
            here.close()
            await asyncio.sleep(0)

    asyncio.run(go())


def test_messages_of_one_read_take_turns_and_nothing_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "TURN", 0.0)  # one frame each

    async def test(pair: Pair) -> None:
        pair.wire.data_received(b"".join(frame(BINARY, bytes([i])) for i in range(50)))
        assert pair.peer.got == [b"\0"]
        assert not pair.wire._reading
        pair.wire.data_received(frame(BINARY, b"late"))  # a read that was under way
        await pair.until(lambda: len(pair.peer.got) == 51)
        assert pair.peer.got == [bytes([i]) for i in range(50)] + [b"late"]
        await pair.until(lambda: pair.wire._reading)
        assert not len(pair.turns)

    over_a_socket(test)


def test_what_a_paused_peer_has_not_taken_waits_until_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "TURN", 60.0)  # however slow the machine is

    async def test(pair: Pair) -> None:
        pair.peer.act = pair.wire.pause
        pair.wire.data_received(b"".join(frame(BINARY, bytes([i])) for i in range(5)))
        for taken in range(1, 6):
            assert len(pair.peer.got) == taken
            assert not len(pair.turns)
            assert not pair.wire._reading
            pair.wire.resume()
            await pair.until(lambda: not len(pair.turns))
        assert pair.peer.got == [bytes([i]) for i in range(5)]
        assert pair.wire._reading

    over_a_socket(test)


def test_a_peer_that_pauses_and_goes_on_at_once_is_given_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "TURN", 0.0)

    async def test(pair: Pair) -> None:
        pair.peer.act = lambda: (pair.wire.pause(), pair.wire.resume())[0]
        pair.wire.data_received(b"".join(frame(BINARY, bytes([i])) for i in range(50)))
        await pair.until(lambda: len(pair.peer.got) == 50)
        assert pair.peer.got == [bytes([i]) for i in range(50)]
        await pair.until(lambda: pair.wire._reading)

    over_a_socket(test)


def test_who_does_not_read_its_pongs_is_not_read_and_gets_the_last_one() -> None:
    async def test(pair: Pair) -> None:
        pair.wire.pause_writing()  # what the transport says once its buffer is full
        for i in range(100):
            pair.wire.data_received(frame(PING, b"%03d" % i))
        await pair.until(lambda: not len(pair.turns) and pair.wire._uncut is None)
        assert not pair.wire._reading
        assert pair.wire._transport.get_write_buffer_size() == 0
        pair.wire.resume_writing()
        assert pair.wire._reading
        assert await pair.read(5) == bytes([0x80 | PONG, 3]) + b"099"

    over_a_socket(test)


def test_the_daemon_keeps_no_more_than_a_buffer_of_pongs() -> None:
    """Over a real socket whose client sends pings for ever and reads nothing."""

    async def test(pair: Pair) -> None:
        flood = memoryview(frame(PING, bytes(125)) * 100)
        sent = at = stuck = 0
        while stuck < 200 and sent < 2**24:
            try:
                at += (count := pair.client.send(flood[at:]))
                sent, stuck = sent + count, 0
                at %= len(flood)
            except BlockingIOError:
                stuck += 1
            await asyncio.sleep(0)
            assert pair.wire._transport.get_write_buffer_size() < 2**17
        assert stuck  # it is not read any more

    over_a_socket(test)
