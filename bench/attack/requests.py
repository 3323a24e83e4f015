"""HTTP requests with exactly the given bytes and headers."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

__all__ = ["Answer", "bearer", "first_frame", "request"]


class Answer(NamedTuple):
    """``retry_after``: the header's value in seconds; ``None``: no header."""

    status: int
    text: str
    retry_after: float | None

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def request(port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """One request on a new connection, with the given headers, a Host header and the length only."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        given = {"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in given.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        again = answer.getheader("Retry-After")
        return Answer(answer.status, answer.read().decode(), None if again is None else float(again))
    finally:
        connection.close()


def first_frame(
    port: int, path: str, headers: Mapping[str, str], frame: Mapping[str, Any] | None = None, more: bytes = b""
) -> tuple[int, dict[str, Any]]:
    """Status of the handshake, and the answer to the first frame (and to rows after it), if any."""

    async def go() -> tuple[int, dict[str, Any]]:
        url = f"ws://127.0.0.1:{port}{path}"
        try:
            async with connect(url, additional_headers=headers, proxy=None, compression=None) as socket:
                if frame is None:
                    return 101, {}
                await socket.send(json.dumps(frame))
                if more:
                    await socket.send(more)
                try:
                    async with asyncio.timeout(30):
                        return 101, dict(json.loads(await socket.recv()))
                except ConnectionClosed:
                    return 101, {}
        except InvalidStatus as refused:
            return refused.response.status_code, {}
        except InvalidHandshake:
            return 0, {}

    return asyncio.run(go())
