"""Each kind of bad input gets a clear error; a stream beside it keeps its exact transcript; nothing leaks."""

import asyncio
import contextlib
import itertools
import json
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from streamer.client import StreamClient
from tests.daemon.running import Running, daemon
from tests.daemon.talk import RATE, deaf, dial, expected, masked, noise, opened, pieces, text, until_closed

Attack = Callable[[Running], Awaitable[None]]
START = json.dumps({"type": "start", "sample_rate": RATE})


def refused(code: str, close: int, *frames: str | bytes, start: bool = True) -> Attack:
    """Send ``frames`` and want to be told ``code`` before the connection is closed with ``close``."""

    async def attack(running: Running) -> None:
        async with dial(running.url) as connection:
            for frame in [START, *frames] if start else frames:
                await connection.send(frame)
            told, closed = await until_closed(connection)
            assert (told[-1]["type"], told[-1]["code"], closed) == ("error", code, close), told
            assert len(told[-1]["message"]) > 20

    return attack


def behind_the_end(close: int, *frames: str | bytes) -> Attack:
    """Send ``frames`` behind the end: all results of what came before it arrive first."""

    async def attack(running: Running) -> None:
        told = []
        for behind in ((), frames):
            async with dial(running.url) as connection:
                for frame in (START, noise(1, 8), '{"type":"end"}', *behind):
                    await connection.send(frame)
                told.append(await until_closed(connection))
        (usual, _), (found, closed) = told
        finals = [frame for frame in usual if frame["type"] == "final"]
        assert [frame for frame in found if frame["type"] == "final"] == finals != []
        kinds = [frame["type"] for frame in found]
        assert kinds[-2:] == ["end", "error"] if close == 1002 else kinds[-1] == "end"
        assert closed == close

    return attack


async def one_gigabyte(running: Running) -> None:
    """A frame that says it has 1 GB; the refusal comes at its header. The client keeps pushing, as such clients do."""
    told, closed = [], 0
    # asyncio of Python 3.11 stumbles over aborting a transport that was closed with unsent data and has since sent it
    with contextlib.suppress(AttributeError):
        async with dial(running.url) as connection:
            await connection.send(START)
            connection.transport.write(struct.pack("!BBQ4s", 0x82, 0x80 | 127, 2**30, b"mask"))
            for _ in range(64):
                if not connection.transport.is_closing():
                    connection.transport.write(bytes(2**16))
            told, closed = await until_closed(connection)
    assert (told[-1]["code"], closed) == ("too_long", 1009)


async def many_small_fragments(running: Running) -> None:
    async def endless() -> None:
        async def parts():
            while True:
                yield bytes(65536)

        await connection.send(parts())

    async with dial(running.url) as connection:
        await connection.send(START)
        sender = asyncio.create_task(endless())
        told, closed = await until_closed(connection)
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        assert (told[-1]["code"], closed) == ("too_long", 1009)


async def zero_bytes(running: Running) -> None:
    async with opened(running.url) as (connection, _):
        for _ in range(100):
            await connection.send(b"")
        await connection.send('{"type":"end"}')
        told, closed = await until_closed(connection)
        assert (told[-1]["type"], told[-1]["position"], closed) == ("end", 0, 1000)


async def vanishes(running: Running) -> None:
    async with opened(running.url) as (connection, _):
        await connection.send(noise(1, 1))
        connection.transport.abort()


async def vanishes_before_start(running: Running) -> None:
    async with dial(running.url) as connection:
        connection.transport.abort()


async def says_nothing(running: Running) -> None:
    async with dial(running.url) as connection:
        told, closed = await until_closed(connection)
        assert (told[-1]["code"], closed) == ("start_timeout", 4408)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def raw(running: Running, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    try:
        writer.write(data)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        await hang_up(writer)


async def http_garbage(running: Running) -> None:
    assert b"400" in (await raw(running, b"\x16\x03\x01\x02\x00 hello\r\n\r\n")).splitlines()[0]


async def silent_tcp(running: Running) -> None:
    assert await raw(running, b"") == b""
    assert await raw(running, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ") == b""


async def endless_headers(running: Running) -> None:
    assert b"200" not in await raw(running, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 50_000)


async def wrong_path(running: Running) -> None:
    handshake = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    answer = await raw(running, b"GET /v2/stream HTTP/1.1\r\nHost: localhost\r\n" + handshake + key)
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"/v1/stream" in answer


async def garbage_frames(running: Running) -> None:
    async with opened(running.url) as (connection, _):
        connection.transport.write(b"\xff" * 1000)  # reserved bits, unknown opcode, not masked
        _, closed = await until_closed(connection)
        assert closed == 1002


def marker(number: int) -> bytes:
    return json.dumps({"type": "marker", "id": f"{number:0180}"}).encode()


async def never_reads(running: Running) -> None:
    """Markers behind audio make the daemon talk; nobody listens."""
    writer = await deaf(running.port)
    audio = bytes(2 * 160)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(90):  # what is not cut off talks until then, and fails
            for n in itertools.count():
                for data in (START.ljust(200).encode(),) if n == 0 else (audio, marker(n)):
                    writer.write(masked(2 if data is audio else 1, data))
                await writer.drain()
    await hang_up(writer)


ATTACKS: dict[str, Attack] = {
    "zero bytes": zero_bytes,
    "markers without audio": refused(
        "too_many_markers", 1008, bytes(2), *(json.dumps({"type": "marker", "id": str(n)}) for n in range(300))
    ),
    "odd byte count": refused("bad_audio", 1007, b"\0\0\0"),
    "NaN": refused("bad_json", 1007, '{"type":"start","sample_rate":NaN}', start=False),
    "text where audio belongs": refused("audio_as_text", 1003, "hello, this is audio"),
    "base64 where audio belongs": refused("audio_as_text", 1003, "AAAAAAAA" * 100),
    "binary text": refused(
        "audio_as_text", 1003, "\x00\x01\x02\udcff".encode("utf-8", "surrogatepass").decode("latin-1")
    ),
    "audio before start": refused("bad_order", 1002, b"\0\0", start=False),
    "start twice": refused("bad_order", 1002, START),
    "end twice": behind_the_end(1000, '{"type":"end"}', '{"type":"end"}'),
    "audio after end, and its results": behind_the_end(1002, b"\0\0", b"\0\0"),
    "marker after end, and its results": behind_the_end(1002, '{"type":"marker","id":"m"}'),
    "audio after end": refused("bad_order", 1002, noise(1, 8), '{"type":"end"}', b"\0\0"),
    "huge JSON": refused("too_long", 1009, '{"type":"start","x":"' + "x" * 500_000 + '"}', start=False),
    "deep JSON": refused("bad_json", 1007, "[" * 10_000, start=False),
    "unknown model": refused("unknown_model", 4404, '{"type":"start","model":"no","sample_rate":8000}', start=False),
    "wrong rate": refused("rate", 4400, '{"type":"start","sample_rate":11}', start=False),
    "impossible rate": refused("bad_frame", 1007, '{"type":"start","sample_rate":-8000}', start=False),
    "bad options": refused("options", 4400, '{"type":"start","sample_rate":8000,"options":{"a":1}}', start=False),
    "bad marker": refused("bad_frame", 1007, '{"type":"marker","id":7}'),
    "one gigabyte": one_gigabyte,
    "endless fragments": many_small_fragments,
    "vanishes": vanishes,
    "vanishes before start": vanishes_before_start,
    "says nothing": says_nothing,
    "HTTP garbage": http_garbage,
    "silent TCP": silent_tcp,
    "endless headers": endless_headers,
    "wrong path": wrong_path,
    "garbage frames": garbage_frames,
    "never reads": never_reads,
}


async def gone(running: Running, sockets: int) -> dict[str, float]:
    """The metrics page once every connection is closed and every abandoned stream evicted."""
    async with asyncio.timeout(30):
        while True:
            page = await asyncio.to_thread(running.metrics)
            sessions = sum(value for name, value in page.items() if name.startswith("streamer_sessions{"))
            if not page["streamer_connections"] and not sessions and running.sockets() <= sockets:
                return page


@pytest.fixture(scope="module")
def attacked(toy: Path, tmp_path_factory: pytest.TempPathFactory):
    bounds = {"grace_seconds": 0.2, "handshake_seconds": 0.5, "send_seconds": 1, "checkpoint_seconds": 0.1}
    with daemon(tmp_path_factory.mktemp("attacked"), toy, max_unsent_events=200, **bounds) as running:
        yield running


@pytest.mark.parametrize("name", ATTACKS)
def test_bad_input_hurts_nobody_else(attacked: Running, toy: Path, name: str) -> None:
    pcm = noise(5, 4)
    parts = pieces(pcm, 11)

    async def beside() -> str:
        async with StreamClient(attacked.url, sample_rate=RATE) as stream:
            for part in parts[: len(parts) // 2]:
                await stream.send(part)
            await ATTACKS[name](attacked)
            for part in parts[len(parts) // 2 :]:
                await stream.send(part)
            await stream.end()
            return text([event async for event in stream])

    sockets, files = attacked.sockets(), len(os.listdir(f"/proc/{attacked.process.pid}/fd"))
    assert asyncio.run(beside()) == expected(toy, pcm)
    page = asyncio.run(gone(attacked, sockets))
    assert page['streamer_state_bytes{model="toy"}'] == 0
    assert len(os.listdir(f"/proc/{attacked.process.pid}/fd")) <= files
    assert attacked.process.poll() is None
    assert "Traceback" not in attacked.errors.read_text()


def test_a_full_daemon_refuses_with_a_hint(toy: Path, tmp_path: Path) -> None:
    async def talk(running: Running) -> None:
        async with opened(running.url) as (_, ready):
            assert ready["type"] == "ready"
            async with dial(running.url) as second:
                await second.send(START)
                told, closed = await until_closed(second)
                assert (told[-1]["code"], closed) == ("capacity", 1013)
                assert told[-1]["retry_after"] > 0

    with daemon(tmp_path, toy, capacity=1) as running:
        asyncio.run(talk(running))
        assert running.metrics()['streamer_refusals_total{reason="capacity"}'] == 1


def test_connections_are_bounded(toy: Path, tmp_path: Path) -> None:
    async def talk(running: Running) -> None:
        async with dial(running.url):
            with pytest.raises(InvalidStatus) as caught:
                await connect(running.url, proxy=None)
            assert caught.value.response.status_code == 503

    with daemon(tmp_path, toy, max_connections=1) as running:
        asyncio.run(talk(running))
