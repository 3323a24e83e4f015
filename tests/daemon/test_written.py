"""Finals with punctuation and capitals over the wire: asked for with `start`, kept across a daemon that goes down."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.client import StreamClient
from streamer.contract.manifest import Packed
from tests.daemon.running import Proxy, Running, daemon
from tests.toys import speech, toy_model

RATE = 8000
WORDS = "john\tA\nthree\tB\n"
OPTIONS = {"units": "phones", "lexicon": Packed.pack(WORDS.encode()).model_dump(), "decoder": {"kind": "beam"}}
PCM = np.concatenate(
    [part for text in ("AB", "BA", "AAB", "A") for part in (speech(text), np.zeros(RATE * 2, np.int16))]
)
SPOKEN = ["john three", "three john", "john john three", "john"]


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It hears "A" as "john" and "B" as "three"."""
    return toy_model(tmp_path_factory.mktemp("talker"), options=OPTIONS)


async def said(url: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    async with StreamClient(url, sample_rate=RATE, options=options) as stream:
        await stream.send(PCM.tobytes())
        await stream.end()
        return [event async for event in stream if event["type"] in ("partial", "final")]


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["type"] == "final"]


def plain(text: str) -> str:
    return re.sub(r"[,.?]", "", text).lower()


def test_a_stream_asks_with_its_start(talker: Path, tmp_path: Path) -> None:
    async def talk(url: str) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(said(url, {"text": "written"}), said(url, {}), said(url, {"text": "spoken"}))

    with daemon(tmp_path, talker) as running:
        written, plainly, spoken = asyncio.run(talk(running.url))
    assert texts(plainly) == texts(spoken) == SPOKEN
    assert [plain(text) for text in texts(written)] == SPOKEN
    assert texts(written)[0].startswith("John ")
    for mine, other in zip(written, plainly, strict=True):
        assert [(w["word"], w["start"], w["end"]) for w in mine["words"]] == [
            (w["word"], w["start"], w["end"]) for w in other["words"]
        ]
        if mine["type"] == "final":
            assert " ".join(word["written"] for word in mine["words"]) == mine["text"]
        else:
            assert mine["text"] == other["text"]


@pytest.mark.long
def test_the_daemon_s_setting_is_for_all_who_say_nothing(talker: Path, tmp_path: Path) -> None:
    async def talk(url: str) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(said(url, {}), said(url, {"text": "spoken"}))

    with daemon(tmp_path, talker, text="written") as running:
        written, spoken = asyncio.run(talk(running.url))
    assert texts(spoken) == SPOKEN
    assert texts(written)[0].startswith("John ")


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL])
def test_what_was_read_outlives_the_daemon(talker: Path, tmp_path: Path, how: int) -> None:
    """Stopped in the middle of the talk, twice; the client just goes on."""
    parts = np.array_split(PCM, 12)

    async def talk(running: Running) -> tuple[list[str], Running]:
        async with (
            Proxy.to(running.port) as proxy,
            StreamClient(proxy.url, sample_rate=RATE, options={"text": "written"}) as stream,
        ):
            for number, part in enumerate(parts):
                await stream.send(part.tobytes())
                if number in (3, 7):
                    async with asyncio.timeout(30):
                        await stream.safe(1)
                    await asyncio.to_thread(running.stop, how)
                    running = await asyncio.to_thread(Running, tmp_path, talker, checkpoint_seconds=0.1)
                    proxy.target = running.port
            await stream.end()
            return texts([event async for event in stream]), running

    got, last = asyncio.run(talk(Running(tmp_path, talker, checkpoint_seconds=0.1)))
    try:
        assert got == texts(asyncio.run(said(last.url, {"text": "written"})))
    finally:
        last.stop(signal.SIGKILL)
    assert [plain(text) for text in got] == SPOKEN
