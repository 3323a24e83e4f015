"""Reads bodies of requests whole, within bounds, and unpacks them; and makes the answer to one that is refused."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamer.serve.bounds import TooMuchError, charge
from streamer.serve.parse_threads import parse_thread
from streamer.serve.readings.parsed import BodyError

__all__ = ["LONG", "in_thread", "is_packed", "json_fits", "problem", "read_body", "threads_behind", "unzip"]

T = TypeVar("T")
#: A body longer than this is parsed in a thread: the event loop has audio to pass on.
SHORT = 16 * 1024
#: The assumed length of a packed body whose unpacked length is not known.
LONG = SHORT + 1
#: A body is unpacked by this many bytes at a time.
PIECE = 2**20
#: Times of the calls that wait for a thread, by a number for each call.
_waiting: dict[int, float] = {}
_numbers = count()


async def read_body(request: Request, limit: int, setting: str = "max_body_bytes") -> bytes:
    """Read the whole body. ``setting``: the name of the ``limit``. Raises :class:`BodyError`: 413 for a longer body,
    503 if the bodies of all requests together exceed their bound."""
    parts: list[bytes] = []
    length = 0
    trouble: TooMuchError | None = None
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise BodyError(400, "the body was cut off")
        part, more = message.get("body", b""), message.get("more_body", False)
        length += len(part)
        if length <= limit and trouble is None:
            try:
                charge(len(part))
                parts.append(part)
                continue
            except TooMuchError as error:
                trouble = error
        parts.clear()  # the rest is read and dropped: a client that is still sending would not see the answer
    if trouble is not None:
        raise BodyError(503, str(trouble))
    if length > limit:
        raise BodyError(413, f"a body of {length} bytes, the limit is {limit} ({setting}): send it in parts")
    return b"".join(parts)


def unzip(body: bytes, encoding: str, limit: int) -> bytes:
    """Unpack a body of ``Content-Encoding`` gzip, deflate or none. Raises :class:`BodyError`; 503 as in
    :func:`read_body`."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise BodyError(415, f"Content-Encoding {encoding[:40]!r}: gzip or none")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
    parts: list[bytes] = []
    length = 0
    try:
        while not unpack.eof and (part := unpack.decompress(body, PIECE)):
            body = unpack.unconsumed_tail
            charge(len(part))
            parts.append(part)
            length += len(part)
            if length > limit:
                raise BodyError(413, f"the body unpacks to more than {limit} bytes (max_unpacked_bytes)")
    except zlib.error as error:
        raise BodyError(400, f"the body is no {encoding}: {error}") from None
    except TooMuchError as error:
        raise BodyError(503, str(error)) from None
    if not unpack.eof:
        raise BodyError(400, f"the body is no whole {encoding}")
    return b"".join(parts)


def is_packed(body: bytes, encoding: str) -> bool:
    """Whether the body is compressed, and so grows, perhaps by far, when it is read."""
    return bool(encoding.strip()) or body[:2] == b"\x1f\x8b"


def json_fits(size: int, limit: int) -> None:
    """Raises :class:`BodyError` 413 for JSON that is too long: reading JSON holds the interpreter, and the numbers take
    ten times its bytes."""
    if size > limit:
        raise BodyError(
            413, f"JSON of {size} bytes, the limit is {limit} (max_json_bytes): send it in parts, or as bytes"
        )


async def in_thread(call: Callable[[], T], size: int) -> T:
    """Run ``call``; in a thread if it handles more than ``SHORT`` bytes (``size``)."""
    if size <= SHORT:
        return call()
    number = next(_numbers)

    def run() -> T:
        _waiting.pop(number, None)
        return call()

    _waiting[number] = monotonic()
    try:
        return await parse_thread(run)
    finally:
        _waiting.pop(number, None)


def threads_behind() -> float:
    """Seconds for which the oldest call of :func:`in_thread` has been waiting for a thread."""
    since = list(_waiting.values())
    return monotonic() - min(since) if since else 0.0


def problem(
    status: int, message: str, retry_after: float | None = None, headers: dict[str, str] | None = None
) -> Response:
    if status == 503 and retry_after is None:
        retry_after = 1.0
    more = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return JSONResponse({"error": message}, status, {**more, **(headers or {})})
