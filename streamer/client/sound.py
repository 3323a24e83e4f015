"""A client that streams sound to a daemon.

async with StreamClient("ws://127.0.0.1:8765/v1/stream", model="digits", sample_rate=16000) as stream:
    await stream.send(pcm)
    await stream.end()
    async for event in stream: ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Unpack

from streamer.client.replay import ReplayBounds, ReplayClient

__all__ = ["StreamClient"]

SAMPLE_BYTES = 2


class StreamClient(ReplayClient):
    """One stream of 16 bit mono PCM. ``url`` with or without the path; ``sample_rate`` in Hz. ``bounds``: see
    :class:`~streamer.client.replay.ReplayBounds`. Positions count samples.
    """

    def __init__(
        self,
        url: str,
        *,
        sample_rate: int,
        model: str | None = None,
        key: str | None = None,
        overflow: str = "wait",
        partials: bool = True,
        options: Mapping[str, Any] | None = None,
        **bounds: Unpack[ReplayBounds],
    ):
        start = {
            "type": "start",
            "sample_rate": sample_rate,
            "overflow": overflow,
            "partials": partials,
            **({"model": model} if model is not None else {}),
            **({"key": key} if key is not None else {}),
            **({"options": dict(options)} if options else {}),
        }
        super().__init__(url, start, SAMPLE_BYTES, **bounds)
        self._resume_as = {"partials": partials}

    async def send(self, pcm: bytes) -> None:
        """Send samples, 16 bit little-endian. Waits while the replay buffer is full. Raises ``ValueError`` for half a
        sample, and :class:`StreamError`."""
        await self.send_bytes(pcm)
