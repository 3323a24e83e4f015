"""Talking to ``/v1/realtime`` with OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.daemon.in_process import run_in_process
from tests.daemon.running import Running

RATE = 8000
SAID = "AB  AAB" + " " * 16 + "BBA" + " " * 16
PREFIX = "conversation.item.input_audio_transcription."


def client_of(running: Running) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"http://127.0.0.1:{running.port}/v1", api_key="none", max_retries=0)


@asynccontextmanager
async def connected(running: Running, **query: str) -> AsyncIterator[Any]:
    asked = {"intent": "transcription", **query}
    async with client_of(running) as client, client.realtime.connect(extra_query=asked) as connection:
        yield connection


def settings(model: str = "toy", turns: Any = None, rate: int = RATE, **more: Any) -> dict[str, Any]:
    form = {"type": "audio/pcm", "rate": rate}
    audio = {"input": {"format": form, "transcription": {"model": model}, "turn_detection": turns}}
    return {"type": "transcription", "audio": audio, **more}


VAD = {"type": "server_vad"}


async def started(connection: Any, **given: Any) -> Any:
    created = await connection.recv()
    assert created.type == "session.created"
    await connection.session.update(session=settings(**given))
    updated = await connection.recv()
    assert updated.type == "session.updated", updated
    return updated.session


async def say(connection: Any, pcm: bytes, size: int = 1600) -> None:
    for at in range(0, len(pcm), size):
        await connection.input_audio_buffer.append(audio=base64.b64encode(pcm[at : at + size]).decode())


async def events(connection: Any, last: str = PREFIX + "completed", count: int = 1) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(60):
        while sum(event.type == last for event in found) < count:
            found.append(await connection.recv())
            assert found[-1].type != "error" or last == "error", found[-1]
    return found


def short(found: list[Any]) -> list[str]:
    return [event.type.removeprefix(PREFIX) for event in found]


def finals(model: Path, pcm: bytes, rate: int = RATE) -> list[dict[str, Any]]:
    return [event for event in run_in_process(model, pcm, rate) if event["type"] == "final" and event["text"]]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
