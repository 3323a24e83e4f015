"""vLLM's dialect of ``/v1/realtime``."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import numpy as np
import websockets

from tests.daemon.running import Running
from tests.serve.openai.realtime_talk import (
    run,
)
from tests.toys import speech


async def flat(running: Running, pcm: bytes, model: str = "worded") -> list[dict[str, Any]]:
    """The steps of vLLM's example of a client."""
    async with websockets.connect(f"ws://127.0.0.1:{running.port}/v1/realtime") as connection:
        created = json.loads(await connection.recv())
        assert created["type"] == "session.created"
        assert created["id"]
        await connection.send(json.dumps({"type": "session.update", "model": model}))
        await connection.send(json.dumps({"type": "input_audio_buffer.commit"}))
        for at in range(0, len(pcm), 4096):
            audio = base64.b64encode(pcm[at : at + 4096]).decode()
            await connection.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
        await connection.send(json.dumps({"type": "input_audio_buffer.commit", "final": True}))
        found = []
        async with asyncio.timeout(60):
            while not found or found[-1]["type"] == "transcription.delta":
                found.append(json.loads(await connection.recv()))
        return found


def test_vllms_dialect(served: Running) -> None:
    found = run(flat(served, np.repeat(speech("AB" + " " * 16 + "BA"), 2).tobytes()))
    assert found[-1]["type"] == "transcription.done"
    assert found[-1]["text"] == "".join(event["delta"] for event in found[:-1]) == "A B B A"
    assert len(found) > 3


def test_vllms_dialect_has_errors_of_its_own(served: Running) -> None:
    (error,) = run(flat(served, b"", "gpt-9"))[:1]
    assert (error["type"], error["code"]) == ("error", "model_not_found")
    assert isinstance(error["error"], str)
