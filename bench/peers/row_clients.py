"""Clients that send rows, in a process of their own: ``python -m bench.peers.row_clients ROAD PORT STREAMS SECONDS``.

Each stream sends a row when the one before is answered. Prints ``begin`` and, after SECONDS, a line of JSON. A road is
a class here: KServe's will stand beside the others.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

import numpy as np
import websockets

from bench.peers.shapes import CHANNELS

MODEL = "plant"


class Http:
    """One connection that is kept, one POST a row. Written out: a client library would cost more than the servers."""

    path = f"/v1/streams/{{key}}?model={MODEL}"

    async def open(self, port: int, key: str) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._head = f"POST {self.path.format(key=key)} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"

    async def ask(self, row: np.ndarray) -> None:
        body = json.dumps([row.tolist()])
        self._writer.write(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise SystemExit(f"{head.decode()}{answer.decode()}")


class Plain(Http):
    path = "/streams/{key}"


class WebSocket:
    """Rows in binary frames, outputs in JSON."""

    async def open(self, port: int, key: str) -> None:
        uri = f"ws://127.0.0.1:{port}/v1/stream"
        self._socket = await websockets.connect(uri, compression=None, max_queue=None)
        await self._socket.send(json.dumps({"type": "start", "model": MODEL, "key": key}))
        await self._socket.recv()

    async def ask(self, row: np.ndarray) -> None:
        await self._socket.send(row.tobytes())
        while '"outputs"' not in (answer := str(await self._socket.recv())):
            if '"type":"error"' in answer:
                raise SystemExit(answer)


ROADS = {"websocket": WebSocket, "http": Http, "fastapi": Plain}


async def main(road: str, port: int, streams: int, seconds: float) -> None:
    rows = np.random.default_rng(0).normal(size=(64, CHANNELS)).astype("<f4")
    waits: list[float] = []

    async def stream(number: int) -> None:
        client = ROADS[road]()
        await client.open(port, f"bench-{number}")
        while True:
            begin = time.monotonic()
            await client.ask(rows[number % 64])
            waits.append(time.monotonic() - begin)

    tasks = [asyncio.create_task(stream(number)) for number in range(streams)]
    running = asyncio.gather(*tasks)
    await asyncio.wait([running], timeout=0.5 + streams / 100)
    if running.done():
        running.result()
    waits.clear()
    print("begin", flush=True)
    begin = time.monotonic()
    await asyncio.wait([running], timeout=seconds)
    if running.done():
        running.result()
    print(json.dumps({"seconds": time.monotonic() - begin, "waits": waits}), flush=True)
    os._exit(0)  # the streams are endless


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
