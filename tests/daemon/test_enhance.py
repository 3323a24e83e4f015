"""Sound back over the WebSocket: every sample, whatever the split, through a lost connection, to a slow reader."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.engine.catalogue import default_models
from tests.daemon.running import Proxy, Running, daemon
from tests.daemon.talk import Events, deaf, dial, expected, masked, noise, pieces, text, transcribe
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


@pytest.mark.long
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
    writer, sound = await deaf(port), noise(1, 4)
    writer.write(masked(1, json.dumps({"type": "start", "sample_rate": RATE}).ljust(200).encode()))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(90):  # what is not cut off goes on until then, and fails
            while True:
                writer.write(masked(2, sound))
                await writer.drain()
    writer.transport.abort()


@pytest.mark.long
def test_a_reader_that_does_not_read_is_cut_off(turner: Path, tmp_path: Path) -> None:
    """What waits for it is bounded, and it is counted."""
    with daemon(tmp_path, turner, send_seconds=0.5, max_unsent_events=64) as running:
        asyncio.run(never_reads(running.port))
        assert running.metrics()['streamer_bad_input_total{reason="not_reading"}'] == 1


def test_the_denoiser_is_not_the_default() -> None:
    assert default_models()[:1] != ["denoiser"]
