"""Cheap clients, hundreds of them in one process: live streams that send each chunk in real time."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any, cast

__all__ = ["LiveClient", "frame", "percentile"]

CONTINUE, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's WebSocket frame; the mask is zeros, so that masking costs nothing."""
    length = len(payload)
    if length < 126:
        head = bytes([0x80 | opcode, 0x80 | length])
    elif length < 1 << 16:
        head = bytes([0x80 | opcode, 0x80 | 126]) + length.to_bytes(2)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + length.to_bytes(8)
    return head + bytes(4) + payload


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below ``share`` of the values; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Wire(asyncio.Protocol):
    """A WebSocket client that only parses frames."""

    def __init__(self, path: bytes = b"/v1/stream") -> None:
        self.path = path
        self.open, self.over = asyncio.Event(), asyncio.Event()
        self.status = 0
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(UPGRADE % self.path)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        at = 0
        if not self.status:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._rest = data
                return
            self.status, at = int(data.split(b" ", 2)[1]), end + 4
            self.open.set()
            if self.status == 101:
                self.opened()
        while len(data) - at >= 2:
            length, body = data[at + 1] & 127, at + 2
            if length > 125:
                size = 2 if length == 126 else 8
                length, body = int.from_bytes(data[body : body + size]), body + size
            if len(data) < body + length:
                break
            self.frame(data[at] & 15, data[body : body + length])
            at = body + length
        self._rest = data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        self.open.set()
        self.over.set()

    def opened(self) -> None: ...

    def frame(self, opcode: int, payload: bytes) -> None: ...


class LiveClient(Wire):
    """A live stream. ``pieces``: a chunk each, sent every ``seconds``, in a loop; a marker follows every ``every``-th.
    ``lags``: for each marker the time of its return, and the seconds since its chunk was sent. ``refused``: the error
    frame, if there was one."""

    def __init__(self, pieces: Sequence[bytes], seconds: float, every: int = 3, **start: Any) -> None:
        super().__init__()
        self.lags: list[tuple[float, float]] = []
        self.refused: dict[str, Any] | None = None
        self.ready = False
        self.answered = asyncio.Event()  # admitted or refused
        self._pieces, self._seconds, self._every, self._start = pieces, seconds, every, start
        self._loop = asyncio.get_running_loop()
        self._sent: dict[int, float] = {}
        self._count = random.randrange(len(pieces))
        self._timer: asyncio.TimerHandle | None = None

    def opened(self) -> None:
        self.transport.write(frame(TEXT, json.dumps({"type": "start", "partials": False, **self._start}).encode()))

    def frame(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            self.transport.write(frame(PONG, payload))
        if opcode != TEXT:
            return
        if payload.startswith(b'{"type":"marker"'):
            now, id = self._loop.time(), int(json.loads(payload)["id"])
            self.lags.append((now, now - self._sent.pop(id)))
        elif payload.startswith(b'{"type":"ready"'):
            self.ready = True
            self.answered.set()
            self._next = self._loop.time() + random.random() * self._seconds
            self._timer = self._loop.call_at(self._next, self._send)
        elif payload.startswith(b'{"type":"error"'):
            self.refused = json.loads(payload)
            self.answered.set()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.answered.set()
        if self._timer is not None:
            self._timer.cancel()

    def late(self, begin: float, end: float) -> list[float]:
        """Lags of the chunks sent from ``begin`` to ``end``; the time so far for markers that have not returned."""
        now = self._loop.time()
        came = [lag for at, lag in self.lags if begin <= at - lag < end]
        return came + [now - at for at in self._sent.values() if begin <= at < end]

    def leave(self) -> None:
        self.transport.abort()

    def _send(self) -> None:
        data = frame(BINARY, self._pieces[self._count % len(self._pieces)])
        if self._count % self._every == 0:
            self._sent[self._count] = self._loop.time()
            data += frame(TEXT, b'{"type":"marker","id":"%d"}' % self._count)
        self._count += 1
        self.transport.write(data)
        self._next += self._seconds
        self._timer = self._loop.call_at(self._next, self._send)
