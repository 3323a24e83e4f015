"""Bodies of requests: whole, bounded, unpacked; and what is said where one can't be taken."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from streamer.serve.readings.parsed import BodyError

__all__ = ["in_thread", "problem", "read_body", "unzip"]

T = TypeVar("T")
#: Parsing a body longer than this goes to a thread: the event loop has audio to pass on.
SHORT = 16 * 1024


async def read_body(request: Request, limit: int) -> bytes:
    """Raises :class:`BodyError`: 413."""
    parts: list[bytes] = []
    length = 0
    try:
        async for part in request.stream():
            length += len(part)
            if length > limit:
                parts.clear()  # the rest is read and dropped: who is still sending would not see the answer
            else:
                parts.append(part)
    except ClientDisconnect:
        raise BodyError(400, "the body was cut off") from None
    if length > limit:
        raise BodyError(413, f"a body of {length} bytes, the limit is {limit} (max_body_bytes): send it in parts")
    return b"".join(parts)


def unzip(body: bytes, encoding: str, limit: int) -> bytes:
    """``Content-Encoding`` gzip, deflate or none. Raises :class:`BodyError`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BodyError(415, f"Content-Encoding {encoding[:40]!r}: gzip or none")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        found = unpack.decompress(body, limit + 1)
    except zlib.error as error:
        raise BodyError(400, f"the body is no {encoding}: {error}") from None
    if len(found) > limit:
        raise BodyError(413, f"the body unpacks to more than {limit} bytes (max_unpacked_bytes)")
    if not unpack.eof:
        raise BodyError(400, f"the body is no whole {encoding}")
    return found


async def in_thread(call: Callable[[], T], size: int) -> T:
    return call() if size <= SHORT else await asyncio.to_thread(call)


def problem(
    status: int, message: str, retry_after: float | None = None, headers: dict[str, str] | None = None
) -> Response:
    more = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return JSONResponse({"error": message}, status, {**more, **(headers or {})})
