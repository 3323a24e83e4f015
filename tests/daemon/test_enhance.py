"""Sound back over the WebSocket: every sample, whatever the split, through a lost connection, to a slow reader."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.model import default_models
from tests.daemon.running import Proxy, Running, daemon
from tests.daemon.talk import Events, dial, expected, noise, pieces, text, transcribe
from tests.enhancers import DELAY, toy_enhancer

RATE = 8000


@pytest.fixture(scope="module")
def turner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_enhancer(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def turning(turner: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("served"), turner, checkpoint_seconds=0.2) as running:
        yield running


def heard(events: Events) -> NDArray[np.int16]:
    return np.frombuffer(b"".join(base64.b64decode(e["pcm"]) for e in events if e["type"] == "audio"), "<i2")


def turned(pcm: bytes) -> NDArray[np.int16]:
    """Upside down, late."""
    return np.concatenate([np.zeros(DELAY, np.int16), -np.frombuffer(pcm, "<i2")])


def test_every_sample_comes_back_whatever_the_split(turning: Running, turner: Path) -> None:
    sounds = [noise(seed, 2) for seed in range(3)]

    async def together() -> list[Events]:
        split = [pieces(pcm, seed) for seed, pcm in enumerate(sounds)]
        return list(await asyncio.gather(*(transcribe(turning.url, p) for p in split)))

    for pcm, events in zip(sounds, asyncio.run(together()), strict=True):
        assert text(events) == expected(turner, pcm)
        assert np.array_equal(heard(events)[: len(pcm) // 2 + DELAY], turned(pcm))


def test_the_frames_on_the_wire(turning: Running) -> None:
    """What a client in another language sees: of each event a text frame, then its samples in a binary one."""

    async def talk() -> tuple[dict[str, object], list[str | bytes]]:
        async with dial(turning.url) as socket:
            await socket.send(json.dumps({"type": "start", "sample_rate": RATE}))
            ready = json.loads(await socket.recv())
            await socket.send(noise(4, 0.1))
            await socket.send('{"type":"end"}')
            return ready, [message async for message in socket]

    ready, frames = asyncio.run(talk())
    assert ready["output_rate"] == RATE
    assert ready["latency_seconds"] == DELAY / RATE
    frames = [f for f in frames if isinstance(f, bytes) or json.loads(f)["type"] != "ack"]
    assert [type(f) for f in frames] == [str, bytes] * (len(frames) // 2) + [str]
    for said, sound in zip(frames[:-1:2], frames[1::2], strict=True):
        event = json.loads(said)
        assert set(event) == {"type", "seq", "start", "end", "samples"}
        assert len(sound) == 2 * event["samples"]


def test_a_lost_connection_costs_no_sample(turning: Running) -> None:
    pcm = noise(6, 4)

    async def cut() -> Events:
        async with Proxy.to(turning.port) as proxy:

            async def later() -> None:
                await proxy.connections(1)
                await asyncio.sleep(0.05)
                proxy.cut()

            cutting = asyncio.create_task(later())
            events = await transcribe(proxy.url, pieces(pcm, 6))
            await cutting
            return events

    events = asyncio.run(cut())
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))
    if numbers == list(range(1, len(numbers) + 1)):  # else it was away for longer than the replay reaches, and is told
        assert np.array_equal(heard(events)[: len(pcm) // 2 + DELAY], turned(pcm))


async def never_reads(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(
        f"GET /v1/stream HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")  # frames must not come before the answer (RFC 6455, section 4.1)
    writer.transport.pause_reading()
    start, sound = json.dumps({"type": "start", "sample_rate": RATE}).ljust(200).encode(), noise(1, 4)
    writer.write(b"\x81" + struct.pack("!BH4x", 0x80 | 126, len(start)) + start)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(60):  # what is not cut off goes on until then, and fails
            while True:
                writer.write(b"\x82" + struct.pack("!BH4x", 0x80 | 126, len(sound)) + sound)
                await writer.drain()
    writer.transport.abort()


def test_a_reader_that_does_not_read_is_cut_off(turner: Path, tmp_path: Path) -> None:
    """What waits for it is bounded, and it is counted."""
    with daemon(tmp_path, turner, send_seconds=0.5, max_unsent_events=64) as running:
        asyncio.run(never_reads(running.port))
        assert running.metrics().get('streamer_bad_input_total{reason="not_reading"}', 0) >= 1, (
            running.errors.read_text()
        )


def test_the_denoiser_is_not_the_default() -> None:
    assert default_models()[:1] != ["denoiser"]
