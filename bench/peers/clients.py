"""Clients of one server in a separate process: ``bench.peers.clients KIND PORT CLIENTS WARM SECONDS [--full]``.

In real time each client sends a chunk when its duration has passed, by the monotonic clock; clients start at different
times. ``--full``: a client sends as soon as at most one chunk is unanswered. sherpa-onnx runs a chunk when the next one
has arrived, so its first message has two chunks: latency is measured from the message that triggers a chunk, and does
not include that delay. Prints ``begin`` and, after SECONDS, a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import websockets

from bench import setup
from bench.peers.shapes import CHUNK, RATE

#: Additional samples of the first message.
AHEAD = {"sherpa-onnx": CHUNK}
PATHS = {"streamer": "/v1/stream", "sherpa-onnx": "/", "fastapi": "/stream"}


@dataclass
class Watch:
    """Totals of all clients since ``since``."""

    since: float = float("inf")
    chunks: int = 0
    late: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)


class Client:
    def __init__(self, kind: str, port: int, number: int, full: bool, watch: Watch) -> None:
        self.kind, self.full, self.watch = kind, full, watch
        self.uri = f"ws://127.0.0.1:{port}{PATHS[kind]}"
        self.pcm, self.place = setup.sound(RATE, 30, number % 8), number
        self.asked: deque[float] = deque()
        self.room = asyncio.Event()
        self.answered = asyncio.Event()

    async def run(self, phase: float, stop: asyncio.Event) -> None:
        async with websockets.connect(self.uri, compression=None, max_queue=None, ping_interval=None) as socket:
            if self.kind == "streamer":
                options = {"decoder": "greedy"}
                await socket.send(json.dumps({"type": "start", "sample_rate": RATE, "options": options}))
            reader = asyncio.create_task(self.read(socket))
            begin, number, at = time.monotonic() + phase, 0, 0
            while not stop.is_set():
                if self.full:
                    self.room.clear()
                    if len(self.asked) > 1:
                        await self.room.wait()
                else:
                    due = begin + number * CHUNK / RATE
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                    self.watch.late.append(time.monotonic() - due)
                size = CHUNK + (AHEAD.get(self.kind, 0) if number == 0 else 0)
                piece = np.take(self.pcm, range(at, at + size), mode="wrap")
                at, number = at + size, number + 1
                self.asked.append(time.monotonic())
                await self.send(socket, piece, number)
            await self.end(socket, reader)

    async def send(self, socket: websockets.ClientConnection, piece: np.ndarray, number: int) -> None:
        if self.kind == "sherpa-onnx":
            await socket.send((piece / np.float32(32768)).astype(np.float32).tobytes())
            return
        await socket.send(piece.tobytes())
        if self.kind == "streamer":
            await socket.send(json.dumps({"type": "marker", "id": str(number)}))

    async def end(self, socket: websockets.ClientConnection, reader: asyncio.Task[None]) -> None:
        if self.kind == "streamer":
            await socket.send('{"type":"end"}')
        elif self.kind == "sherpa-onnx":
            await socket.send("Done")
        else:
            await socket.close()
        await asyncio.wait([reader], timeout=20)
        reader.cancel()

    async def read(self, socket: websockets.ClientConnection) -> None:
        async for frame in socket:
            if (self.kind == "streamer" and '"type":"marker"' not in frame) or not self.asked:
                continue
            now, asked = time.monotonic(), self.asked.popleft()
            self.room.set()
            self.answered.set()
            if asked >= self.watch.since:
                self.watch.waits.append(now - asked)
            if now >= self.watch.since:
                self.watch.chunks += 1


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=PATHS)
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("warm", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    watch, stop = Watch(), asyncio.Event()
    clients = [Client(given.kind, given.port, i, given.full, watch) for i in range(given.clients)]
    phases = random.Random(0)
    tasks = [asyncio.create_task(client.run(phases.random() * CHUNK / RATE, stop)) for client in clients]
    everybody = asyncio.gather(*(client.answered.wait() for client in clients))
    await asyncio.wait([everybody, *tasks], return_when=asyncio.FIRST_COMPLETED, timeout=60)
    if not everybody.done():
        for task in tasks:
            if task.done():
                task.result()
        raise SystemExit("not all clients were answered within a minute")
    await asyncio.sleep(given.warm)
    watch.late.clear()
    watch.since = time.monotonic()
    print("begin", flush=True)
    await asyncio.sleep(given.seconds)
    took, chunks, waits = time.monotonic() - watch.since, watch.chunks, list(watch.waits)
    now = time.monotonic()
    # Unanswered chunks count with the time so far; without them a server that falls behind would look fast.
    waits += [now - asked for client in clients for asked in client.asked if asked >= watch.since]
    print(json.dumps({"seconds": took, "chunks": chunks, "waits": waits, "late": watch.late}), flush=True)
    stop.set()
    await asyncio.wait(tasks, timeout=30)


if __name__ == "__main__":
    asyncio.run(main())
