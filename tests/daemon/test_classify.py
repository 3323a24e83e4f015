"""A classifier over the WebSocket: the events of the registry in process, whatever the split, the company and a
restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.client import StreamClient
from tests.daemon.running import Proxy, Running, daemon
from tests.daemon.talk import expected, noise, pieces, same, text, transcribe
from tests.toys import toy_model


@pytest.fixture(scope="module")
def listener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_model(tmp_path_factory.mktemp("models"), name="listener", classify=True)


@pytest.fixture(scope="module")
def listening(listener: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("served"), listener, checkpoint_seconds=0.2) as running:
        yield running


@pytest.mark.long
def test_segments_and_answers_whatever_the_split(listening: Running, listener: Path) -> None:
    sounds = [noise(seed, 4) for seed in range(4)]

    async def together() -> list[str]:
        split = [pieces(pcm, seed) for seed, pcm in enumerate(sounds)]
        return [text(events) for events in await asyncio.gather(*(transcribe(listening.url, p) for p in split))]

    got = asyncio.run(together())
    assert got == [expected(listener, pcm) for pcm in sounds]
    assert all('"phase": "end"' in events and '"type": "final"' in events for events in got)


def test_wishes_of_a_client(listening: Running) -> None:
    pcm = noise(5, 4)
    wish = {"segments": {"on": 1.0, "off": 1.0}, "partials": False}
    kinds = [event["type"] for event in asyncio.run(transcribe(listening.url, [pcm], options=wish))]
    assert kinds[-2:] == ["final", "end"]
    assert "partial" not in kinds


def test_a_lost_connection_costs_no_segment(listening: Running, listener: Path) -> None:
    pcm = noise(6, 6)

    async def cut() -> str:
        async with Proxy.to(listening.port) as proxy:
            parts = pieces(pcm, 6)

            async def later() -> None:
                await proxy.connections(1)
                await asyncio.sleep(0.3)
                proxy.cut()

            cutting = asyncio.create_task(later())
            events = await transcribe(proxy.url, parts)
            await cutting
            return text(events)

    same(asyncio.run(cut()), expected(listener, pcm))


def test_a_restart_costs_no_segment(listener: Path, tmp_path: Path) -> None:
    """Half of it, the daemon goes down and comes back at the same port, the other half."""
    pcm = noise(7, 6)
    half = len(pcm) // 4 * 2

    async def talk(first: Running) -> str:
        async with StreamClient(first.url, sample_rate=8000, first_delay=0.05) as stream:
            await stream.send(pcm[:half])
            await stream.marker("half")
            seen = []
            async for event in stream:
                seen.append(event)
                if event["type"] == "marker":
                    break
            assert await asyncio.to_thread(first.stop) == 0
            with daemon(tmp_path / "two", listener, port=first.port, state_directory=tmp_path / "state"):
                await stream.send(pcm[half:])
                await stream.end()
                seen += [event async for event in stream]
            return text([event for event in seen if event["type"] != "marker"])

    running = Running(tmp_path / "one", listener, state_directory=tmp_path / "state")
    got = asyncio.run(talk(running))

    def plain(lines: str) -> list[dict[str, Any]]:  # the marker has taken a number
        found = [json.loads(line) for line in lines.splitlines()]
        return [{k: v for k, v in event.items() if k != "seq"} for event in found if event["type"] != "partial"]

    assert plain(got) == plain(expected(listener, pcm))
