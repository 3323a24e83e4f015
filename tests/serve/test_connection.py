"""A connection whose stream was taken over: what it still has in its buffers is nobody's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.refusals import NotAttached
from streamer.serve.access.grant import ANYONE
from streamer.serve.stream.connection import StreamConnection
from streamer.serve.stream.connections import StreamConnections
from streamer.streams.exchange import Exchange
from streamer.streams.registry import Registry
from tests.engine.support import PATIENCE, Events, running
from tests.toys import samples

START = json.dumps({"type": "start", "key": "k"}).encode()
PCM = samples(1, 1000).tobytes()


class RecordingSocket:
    """The other side of the connection's socket: what it was sent. ``then`` is called with each event."""

    writable = True
    grant, span = ANYONE, None

    def __init__(self, streams: StreamConnections, then: Callable[[dict[str, Any]], None] = lambda event: None) -> None:
        self.loop = asyncio.get_running_loop()
        self.got: list[dict[str, Any]] = []
        self.closed = self.loop.create_future()
        self.ready = asyncio.Event()
        self._then = then
        self.stream = StreamConnection(self, streams)  # type: ignore[arg-type]

    def send(self, frames: list[bytes]) -> None:
        for frame in frames:
            event = json.loads(frame)
            self.got.append(event)
            self._then(event)
            if event["type"] == "ready":
                self.ready.set()

    def close(self, code: int, reason: str) -> None:
        if not self.closed.done():
            self.closed.set_result(code)

    def pause(self) -> None: ...

    def resume(self) -> None: ...


async def take_over(registry: Registry, late: Callable[[StreamConnection], None]) -> tuple[int, int]:
    """A feeds 1000 rows, B takes its stream over, and ``late`` is what A still has when B is told its position: that
    position, and A's close code."""
    streams = StreamConnections(registry, registry.settings, registry.metrics, asyncio.get_running_loop())
    streams.closed = None
    a = RecordingSocket(streams)
    a.stream.on_message(START, True)
    await asyncio.wait_for(a.ready.wait(), PATIENCE)
    a.stream.on_message(PCM, False)
    b = RecordingSocket(streams, lambda event: late(a.stream) if event["type"] == "ready" else None)
    b.stream.on_message(START, True)
    await asyncio.wait_for(b.ready.wait(), PATIENCE)
    code = await asyncio.wait_for(a.closed, PATIENCE)
    b.stream._handshake_over()
    return b.got[0]["position"], code


def end(stream: StreamConnection) -> None:
    stream.on_message(json.dumps({"type": "end"}).encode(), True)


def marker(stream: StreamConnection) -> None:
    stream.on_message(json.dumps({"type": "marker", "id": "late"}).encode(), True)


@pytest.mark.parametrize("late", [lambda stream: stream.on_message(PCM, False), end, marker])
def test_a_connection_that_lost_its_stream_feeds_it_no_more(
    toy: Path, tmp_path: Path, late: Callable[[StreamConnection], None]
) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        told, code = asyncio.run(take_over(registry, late))
        session = registry._table.get("k")
        assert session is not None
        assert (told, session.received, code) == (1000, 1000, 4409)
        assert not session._intake.ending
        assert not session._markers.waiting


def test_what_is_said_of_the_start_is_where_the_client_came(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        first, second = Events(), Events()
        session = registry.open(model=None, key="k", sink=first)
        session.feed(PCM, first)
        registry.open(model=None, key="k", sink=second)
        with pytest.raises(NotAttached):
            session.feed(PCM, first)
        session.feed(PCM, second)
        assert registry.describe(session)["position"] == 1000


def test_a_request_whose_stream_was_taken_over_takes_nothing(toy: Path, tmp_path: Path) -> None:
    with running(toy, folder=tmp_path, store=True) as registry:
        done: list[bool] = []
        exchange = Exchange(lambda: done.append(True))
        session = registry.open(model=None, key="k", sink=exchange)
        registry.open(model=None, key="k", sink=Events())
        exchange.send(session, np.zeros(320, np.int16))
        assert (done, session.received) == ([True], 0)
        assert exchange.error is not None
        assert exchange.error["code"] == "taken_over"
