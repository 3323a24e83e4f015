"""Floods of one kind each, until killed: ``python -m bench.attack.floods KIND PORT CONNECTIONS``."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from collections.abc import Callable
from typing import cast

import numpy as np

from bench.attack.clients import BINARY, CONTINUE, PING, TEXT, Wire, frame

__all__ = ["KINDS", "Flood", "frame_of_rows"]

#: Seconds until a closed connection is opened again.
PAUSE = 0.05


class Flood(Wire):
    """Sends forever, once its stream is ready, as fast as the daemon reads; ``deaf``: never reads."""

    def __init__(self, data: Callable[[int], bytes], rate: int | None = None, deaf: bool = False) -> None:
        super().__init__()
        self._data, self._deaf, self._count, self._writable = data, deaf, 0, True
        self.ready, self.answered = False, asyncio.Event()  # answered: admitted or refused
        self._hello = {"type": "start", "partials": False, **({"sample_rate": rate} if rate else {})}

    def opened(self) -> None:
        self.transport.set_write_buffer_limits(2**20)
        self.transport.write(frame(TEXT, json.dumps(self._hello).encode()))

    def frame(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT and payload.startswith(b'{"type":"ready"'):
            self.ready = True
            self.answered.set()
            if self._deaf:
                self.transport.pause_reading()
            self._send()
        elif opcode == TEXT and payload.startswith(b'{"type":"error"'):
            self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.answered.set()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._send()

    def _send(self) -> None:
        while self._writable and not self.transport.is_closing():
            self.transport.write(self._data(self._count))
            self._count += 1


class Requests(asyncio.Protocol):
    """Sends requests forever, without waiting for answers; ``deaf``: never reads."""

    def __init__(self, request: bytes, deaf: bool = False) -> None:
        self._request, self._deaf, self._writable = request, deaf, True
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(2**18)
        if self._deaf:
            self._transport.pause_reading()
        self.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.over.set()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        while self._writable and not self._transport.is_closing():
            self._transport.write(self._request)


def frame_of_rows(data: bytes) -> bytes:
    return frame(BINARY, data)


def _get(path: bytes, times: int = 500) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path * times


def _post(body: bytes, encoding: bytes = b"") -> bytes:
    said = b"Content-Encoding: %b\r\n" % encoding if encoding else b""
    head = (
        b"POST /v1/streams/flood HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%bContent-Length: %d"
    )
    return head % (said, len(body)) + b"\r\n\r\n" + body


def _markers(count: int) -> bytes:
    """250 markers, and a chunk of silence, which releases them."""
    some = b"".join(frame(TEXT, b'{"type":"marker","id":"%d"}' % (250 * count + i)) for i in range(250))
    return some + frame(BINARY, bytes(2**14))


def _numbers(size: int) -> bytes:
    return b"[" + b"12345,-678," * (size // 11) + b"1]"


def _made(kind: str) -> Callable[[], Flood | Requests]:
    if kind == "tiny":
        data = frame(BINARY, bytes(2)) * 8192
    elif kind == "pings":
        data = frame(PING, bytes(125)) * 1000
    elif kind == "fragments":
        nothing = frame(CONTINUE, b"")
        data = bytes([TEXT]) + nothing[1:] + (bytes([CONTINUE]) + nothing[1:]) * 8192
    elif kind == "resampled":
        noise = np.random.default_rng(0).integers(-3000, 3000, 2**19, np.int16)
        data = frame(BINARY, noise.tobytes())
        return lambda: Flood(lambda count: data, 48_000)
    elif kind == "markers":
        return lambda: Flood(_markers)
    elif kind in ("/healthz", "/metrics"):
        asked = _get(kind.encode())
        return lambda: Requests(asked)
    elif kind == "json":
        body = _post(_numbers(2**22 - 100))
        return lambda: Requests(body)
    elif kind == "packed":
        body = _post(gzip.compress(_numbers(2**24)), b"gzip")
        return lambda: Requests(body)
    else:
        raise SystemExit(f"no flood is called {kind}: {', '.join(KINDS)}")
    return lambda: Flood(lambda count: data, deaf=kind == "pings")


#: Descriptions of the floods.
KINDS = {
    "tiny": "frames of 2 bytes",
    "markers": "markers",
    "pings": "pings whose pongs are not read",
    "fragments": "fragments of nothing",
    "resampled": "frames of 1 MiB at 48 kHz",
    "/healthz": "pipelined /healthz",
    "/metrics": "pipelined /metrics",
    "json": "bodies of 4 MiB of JSON",
    "packed": "packed bodies that become 16 MiB",
}


async def _flood(kind: str, port: int, connections: int) -> None:
    make = _made(kind)

    async def one() -> None:
        while True:
            _, client = await asyncio.get_running_loop().create_connection(make, "127.0.0.1", port)
            await client.over.wait()
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(one() for _ in range(connections)))


if __name__ == "__main__":
    asyncio.run(_flood(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
