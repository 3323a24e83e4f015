"""A disk that takes its time: whoever asks for a sleeping stream waits for it, and nobody else does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from streamer.serve.daemon import Daemon
from streamer.serve.notify import Notifier
from streamer.serve.server import bind
from streamer.settings import Settings
from streamer.store.sessions import SqliteStore
from tests.daemon.running import Running, daemon
from tests.daemon.talk import dial, expected, noise, text, transcribe
from tests.toys import samples


def test_the_event_loop_does_not_wait_for_the_disk(toy: Path, tmp_path: Path) -> None:
    """Somebody holds the store's file; a client resumes a stream that may be in there. Meanwhile pages are answered and
    streams run. When the resume has its answer is not said: a read waits for the keeper's write at most."""
    pcm = noise(1, 2)

    async def talk(running: Running, holder: sqlite3.Connection) -> None:
        async with dial(running.url) as busy, dial(running.url) as waiting:
            await busy.send('{"type":"start","sample_rate":8000}')
            assert json.loads(await busy.recv())["type"] == "ready"
            holder.execute("BEGIN IMMEDIATE")
            try:
                await busy.send(noise(2, 1))  # there is something to save, and whoever saves it waits
                async with asyncio.timeout(30):
                    while not (await asyncio.to_thread(running.metrics))['streamer_rows_total{model="toy"}']:
                        pass
                await waiting.send('{"type":"resume","stream":"nobody"}')
                answer = asyncio.create_task(waiting.recv())
                assert (await asyncio.to_thread(running.get, "/healthz"))[0] == 200
                assert text(await transcribe(running.url, [pcm])) == expected(toy, pcm)
            finally:
                holder.rollback()
            assert json.loads(await answer)["code"] in ("unknown_stream", "store")

    with daemon(tmp_path, toy, checkpoint_seconds=0.02) as running:
        holder = sqlite3.connect(tmp_path / "state" / "sessions.sqlite", isolation_level=None)
        try:
            asyncio.run(talk(running, holder))
        finally:
            holder.close()


class HeldStore(SqliteStore):
    """A disk that reads nothing before it is let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.free = threading.Event()

    def get(self, id: str) -> bytes | None:
        assert self.free.wait(60)
        return super().get(id)


async def page(port: int, path: str) -> str:
    """Without threads: the daemon's are what is looked at, and it lives in this process."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return (await reader.read()).decode()
    finally:
        writer.close()


def test_however_many_wait_for_the_disk_nobody_else_does(toy: Path, tmp_path: Path) -> None:
    """A page, a long text frame of rows and a stream that is awake need threads or none, but never those in which
    others wait for the disk."""
    rows = json.dumps({"type": "rows", "values": samples(2, 8000).tolist()})  # long: it is read in a thread

    async def go() -> None:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        url = f"ws://127.0.0.1:{port}/v1/stream"
        settings = Settings(
            models=(str(toy),), state_directory=tmp_path, host="127.0.0.1", port=0, lanes=1, handshake_seconds=60
        )
        store = HeldStore(tmp_path / "sessions.sqlite")
        one = Daemon(settings, listener, store, Notifier.from_environment(), None, None)
        living = asyncio.create_task(one.live())
        try:
            async with asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
                await one.server.listening.wait()
                while " 200 OK" not in await page(port, "/readyz"):
                    pass
                waiting = [await stack.enter_async_context(dial(url)) for _ in range(40)]  # more than there are threads
                for number, socket in enumerate(waiting):
                    await socket.send(json.dumps({"type": "resume", "stream": f"nobody{number}"}))
                assert " 200 OK" in await page(port, "/metrics")
                busy = await stack.enter_async_context(dial(url))
                await busy.send('{"type":"start","sample_rate":8000}')
                stream = json.loads(await busy.recv())["stream"]
                await busy.send(rows)
                while json.loads(await busy.recv())["type"] == "ack":
                    pass
                other = await stack.enter_async_context(dial(url))
                await other.send(json.dumps({"type": "resume", "stream": stream}))
                assert json.loads(await other.recv())["type"] == "ready"
                store.free.set()
                for socket in waiting:
                    assert json.loads(await socket.recv())["code"] == "unknown_stream"
        finally:
            store.free.set()
            one._stop.set()
            await living
            listener.close()

    asyncio.run(go())


def test_streams_and_sensors_are_drained_side_by_side_within_one_time(toy: Path, tmp_path: Path) -> None:
    """Neither waits for the other: together they take no longer than ``drain_seconds``."""
    started = threading.Barrier(2)
    given: list[float] = []

    def drains(timeout: float) -> int:
        started.wait(20)  # broken if one is called behind the other
        given.append(timeout)
        return 0

    async def go() -> None:
        settings: Any = Settings(
            models=(str(toy),), state_directory=tmp_path, drain_seconds=7, host="127.0.0.1", port=0
        )
        listener = bind("127.0.0.1", 0)
        try:
            one = Daemon(settings, listener, None, Notifier.from_environment(), None, None)  # type: ignore[arg-type]
            one.server.servers = []
            one.registry.drain = drains  # type: ignore[method-assign]
            one.sensors.drain = drains  # type: ignore[method-assign]
            await one._drain()
        finally:
            listener.close()

    asyncio.run(go())
    assert len(given) == 2
    assert max(given) <= 7
