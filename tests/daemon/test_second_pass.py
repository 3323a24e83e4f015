"""The second pass in a daemon, and what a client makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import soundfile

from streamer.client import StreamClient
from streamer.engine.catalogue import resolve
from tests.daemon.running import Running, daemon

WEIGHTS = Path(os.environ.get("STREAMER_WHISPER") or "whisper")
SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "digits.flac"


def test_a_folder_without_a_model_ends_the_daemon(toy: Path, tmp_path: Path) -> None:
    running = Running(tmp_path, toy, wait=False, revise=tmp_path)
    assert running.process.wait(60) == 78
    running.stop()
    assert "the Whisper model" in running.errors.read_text()


def test_a_stream_that_asks_for_what_is_not_there_is_told(toy: Path, tmp_path: Path) -> None:
    from streamer.client import StreamError

    async def talk(url: str) -> None:
        async with StreamClient(url, sample_rate=8000, options={"revise": True}):
            pass

    with daemon(tmp_path, toy) as running, pytest.raises(StreamError, match="setting revise"):
        asyncio.run(talk(running.url))


def test_a_client_shows_partials_without_a_number_once() -> None:
    async def hear() -> list[tuple[str, Any]]:
        client = StreamClient("ws://127.0.0.1:1", sample_rate=8000)
        for kind, seq in (
            ("partial", 1),
            ("partial", None),
            ("final", 2),
            ("partial", 2),
            ("partial", None),
            ("end", 4),
        ):
            number = {} if seq is None else {"seq": seq}
            client._receive({"type": kind, "text": "a", **number})
        return [(event["type"], event.get("seq")) for event in client._events]

    told = asyncio.run(hear())
    assert told == [("partial", 1), ("partial", None), ("final", 2), ("partial", None), ("end", 4)]


def test_finals_are_heard_again_by_whisper(tmp_path: Path) -> None:
    folder = WEIGHTS / "tiny.en"
    if not (folder / "model.bin").is_file():
        pytest.skip(f"no Whisper model tiny.en in {WEIGHTS}: set STREAMER_WHISPER to a folder that has it")

    async def talk(url: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        pcm, rate = soundfile.read(SAMPLE, dtype="int16")
        async with StreamClient(url, sample_rate=rate, model="digits", options=options) as client:
            await client.send(pcm[: 4 * rate].tobytes())
            await client.end()
            return [event async for event in client if event["type"] == "final"]

    with daemon(tmp_path, resolve("digits"), revise=folder, revise_seconds=60) as running:
        again = asyncio.run(talk(running.url, {}))
        once = asyncio.run(talk(running.url, {"revise": False}))
        counts = running.metrics()
        assert running.stop(signal.SIGTERM) == 0
    assert [event["revised"] for event in again] == [True] * len(once)
    assert not any("revised" in event for event in once)
    assert counts['streamer_second_pass_finals_total{outcome="revised"}'] == len(again)
    assert all("written" in word for event in again for word in event["words"])
