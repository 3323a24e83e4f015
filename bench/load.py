"""Many clients in a separate process, until terminated: ``python -m bench.load PORT STREAMS [SOUND]``.

Every client sends one chunk in a message, as fast as the daemon reads, and discards all events.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys

import websockets

from bench import setup


async def client(port: int, rate: int, pieces: list[bytes]) -> None:
    given = {"compression": None, "max_queue": None, "ping_interval": None}  # the bench may stop this process
    async with websockets.connect(f"ws://127.0.0.1:{port}/v1/stream", **given) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate": rate}))
        reader = asyncio.create_task(read(socket))
        for piece in itertools.cycle(pieces):
            await socket.send(piece)
            await asyncio.sleep(0)
        await reader


async def read(socket: websockets.ClientConnection) -> None:
    async for _ in socket:
        pass


async def load(port: int, streams: int, sound: str) -> None:
    info = json.loads(setup.get(port, "/v1/models"))["models"][0]
    rate = info["sample_rate"]
    size = 2 * round(info["chunk_seconds"] * rate)
    sounds = [setup.sound(rate, 20, seed, sound).tobytes() for seed in range(8)]
    pieces = [[data[at : at + size] for at in range(0, len(data) - size, size)] for data in sounds]
    await asyncio.gather(*(client(port, rate, pieces[i % 8]) for i in range(streams)))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    asyncio.run(load(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "speech"))
