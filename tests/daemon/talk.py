"""Talking to a daemon, and what it should have said."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from streamer.client import StreamClient
from tests.daemon.in_process import run_in_process
from tests.toys import samples

RATE = 8000
Events = list[dict[str, Any]]


def noise(seed: int, seconds: float) -> bytes:
    return samples(seed, round(seconds * RATE)).tobytes()


@cache
def expected(model: Path, pcm: bytes, rate: int = RATE) -> str:
    """Every event of the whole stream in one piece through the registry, as JSON (see :func:`text`)."""
    return text(run_in_process(model, pcm, rate))


def text(events: Events) -> str:
    """Every event with its number and times, one a line."""
    return "\n".join(json.dumps(event, sort_keys=True) for event in events)


def firm(lines: str) -> list[str]:
    """Without partials: of those a client that was away gets only the newest, the others are superseded."""
    return [line for line in lines.splitlines() if json.loads(line)["type"] != "partial"]


def same(got: str, whole: str) -> None:
    """For a client that lost its connection: everything firm, and no partial that an undisturbed one doesn't get."""
    assert firm(got) == firm(whole)
    assert not set(got.splitlines()) - set(whole.splitlines())


def pieces(pcm: bytes, seed: int, longest: int = 4000) -> list[bytes]:
    """A random split between samples; some pieces are empty."""
    rng, found, at = random.Random(seed), [], 0
    while at < len(pcm):
        size = 2 * rng.choice([0, 1, rng.randrange(1, 50), rng.randrange(1, longest)])
        found.append(pcm[at : at + size])
        at += size
    return found


async def transcribe(url: str, parts: Sequence[bytes], rate: int = RATE, **options: Any) -> Events:
    async with StreamClient(url, sample_rate=rate, **options) as stream:
        for part in parts:
            await stream.send(part)
        await stream.end()
        return [event async for event in stream]


@asynccontextmanager
async def dial(url: str) -> AsyncIterator[ClientConnection]:
    """A bare connection; whatever it was used for, no socket is left behind."""
    async with connect(url, compression=None, proxy=None, max_size=None, close_timeout=1) as socket:
        try:
            yield socket
        finally:
            if socket.state is State.OPEN:
                await socket.close()
            socket.transport.abort()


@asynccontextmanager
async def opened(url: str, rate: int = RATE, **more: Any) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """A bare connection with its stream started, and what the daemon said to that."""
    async with dial(url) as socket:
        await socket.send(json.dumps({"type": "start", "sample_rate": rate, **more}))
        yield socket, json.loads(await socket.recv())


async def until_closed(socket: ClientConnection) -> tuple[Events, int]:
    """The remaining frames, acknowledgements left out, and the close code."""
    frames: Events = []
    close = None
    async with asyncio.timeout(30):
        while True:
            try:
                frames.append(json.loads(await socket.recv()))
            except ConnectionClosed as closed:
                close = closed.rcvd
                break
    assert close is not None, f"no close frame came after {frames[-1:]}"
    return [frame for frame in frames if frame["type"] != "ack"], close.code


def masked(opcode: int, data: bytes) -> bytes:
    """A client's frame of 126 bytes to 64 KiB, masked with zeros."""
    return bytes([0x80 | opcode]) + struct.pack("!BH4x", 0x80 | 126, len(data)) + data


async def deaf(port: int) -> asyncio.StreamWriter:
    """A WebSocket that reads nothing after the handshake, with as little room for what it does not read as there is.

    Asked for before the connection: a window that shrinks later has the kernel drop what acknowledges the client's own
    bytes, and then nobody hears anything.
    """
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=plain, limit=1024)
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    writer.write(
        f"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{key}\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")  # frames must not come before the answer (RFC 6455, section 4.1)
    writer.transport.pause_reading()
    return writer
