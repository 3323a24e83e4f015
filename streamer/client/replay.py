"""One stream over one WebSocket that is made again: what is not yet safe is kept, and sent again after a loss.

Every sent frame waits in a replay buffer until an ``ack`` covers it. After a lost connection the client resumes, is
told a ``position``, sends again from there, and drops the events whose ``seq`` it has seen. What a row is, is the
subclass's business: this module counts rows and cuts bytes.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self, TypedDict, Unpack

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

__all__ = ["Bounds", "ReplayClient", "StreamError"]

log = logging.getLogger(__name__)

#: Errors that pass: the daemon is starting or going down, or this connection was the trouble and not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: And these, once a stream has begun: somebody took the slot while the daemon was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store"}


class StreamError(Exception):
    """The stream can't go on. ``code`` as on the wire, or ``unreachable``."""

    def __init__(self, code: str, message: str, retry_after: float | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after


class Bounds(TypedDict, total=False):
    """``max_unacked_bytes`` (64 MiB) bounds the replay buffer: senders wait for acknowledgements when it is full.
    ``retry_seconds`` (60) is how long the daemon may be away before :class:`StreamError` ``unreachable``; between two
    tries ``first_delay`` (0.1) to ``max_delay`` (5) seconds."""

    max_unacked_bytes: int
    retry_seconds: float
    first_delay: float
    max_delay: float


class _Item(NamedTuple):
    """A frame as sent. ``start`` and ``end`` in rows; equal for control frames."""

    start: int
    end: int
    data: bytes | str


class ReplayClient:
    """``url`` with or without the path. ``start``: the first frame of a new stream. ``row_bytes``: of one row; 0 until
    ``ready`` tells."""

    def __init__(
        self,
        url: str,
        start: Mapping[str, Any],
        row_bytes: int = 0,
        **bounds: Unpack[Bounds],
    ):
        url = url.replace("http://", "ws://", 1).replace("https://", "wss://", 1).rstrip("/")
        self.url = url if url.endswith("/v1/stream") else url + "/v1/stream"
        self._start = dict(start)
        self._resume_as: dict[str, Any] = {}  # what a resume says beside the stream
        self._row_bytes = row_bytes
        self._max_unacked = bounds.get("max_unacked_bytes", 64 * 2**20)
        self._retry_seconds = bounds.get("retry_seconds", 60.0)
        self._delays = (bounds.get("first_delay", 0.1), bounds.get("max_delay", 5.0))
        self._unacked: deque[_Item] = deque()  # sent, not yet safe
        self._outgoing: deque[_Item] = deque()  # not yet sent on this connection
        self._held = 0  # bytes in both
        self._changed = asyncio.Event()  # something to send
        self._room = asyncio.Event()
        self._room.set()
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._error: StreamError | None = None
        self._task: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._finished = False
        #: Rows of the stream that were sent, and how many of them the daemon has made safe. Those that an earlier
        #: connection of the same key sent are among them.
        self.position = 0
        self.acknowledged = 0
        self.seq = 0
        #: The stream's id and the last ``ready`` frame; how often the connection was made anew.
        self.id: str | None = None
        self.ready: dict[str, Any] = {}
        self.reconnects = 0

    # -- for the user ------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        await self._opened.wait()
        if self._error is not None:
            await self.close()
            raise self._error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def send_bytes(self, data: bytes) -> None:
        """Whole rows, little-endian. Waits while the replay buffer is full. Raises :class:`StreamError`."""
        if len(data) % self._row_bytes:
            raise ValueError(f"{len(data)} bytes are no whole number of rows of {self._row_bytes} bytes")
        while self._held + len(data) > self._max_unacked and self._held and self._error is None:
            self._room.clear()
            await self._room.wait()
        if data:
            start = self.position
            self.position += len(data) // self._row_bytes
            self._put(_Item(start, self.position, bytes(data)))

    async def marker(self, id: str) -> None:
        """Ask for a ``marker`` event once everything sent so far is decoded."""
        self._put(_Item(self.position, self.position, json.dumps({"type": "marker", "id": id})))

    async def end(self) -> None:
        """No more samples. The ``end`` event is the last one."""
        self._put(_Item(self.position, self.position, '{"type":"end"}'))

    async def safe(self, position: int | None = None) -> None:
        """Wait until the first ``position`` rows (default: all sent so far) are acknowledged."""
        position = self.position if position is None else position
        while self.acknowledged < position and self._error is None and not self._finished:
            self._room.clear()
            await self._room.wait()
        if self._error is not None:
            raise self._error

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._iterate()

    async def close(self) -> None:
        """Go away; the daemon keeps the stream for its grace time."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _iterate(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self._events.get()) is not None:
            yield event
        if self._error is not None:
            raise self._error

    def _put(self, item: _Item) -> None:
        if self._error is not None:
            raise self._error
        self._held += len(item.data)
        self._outgoing.append(item)
        self._changed.set()

    # -- the connection ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except StreamError as error:
            self._error = error
        except asyncio.CancelledError:
            self._error = self._error or StreamError("closed", "the client was closed")
            raise
        except Exception as error:  # a bug here must not leave the user waiting for ever
            self._error = StreamError("internal", repr(error))
            log.exception("the stream client failed")
        finally:
            self._opened.set()
            self._room.set()
            self._events.put_nowait(None)

    async def _keep_connected(self) -> None:
        attempt, since = 0, time.monotonic()
        while not self._finished:
            reason, open_socket = "connection lost", None
            try:
                # No ping timeout of ours: a daemon that holds the socket for back-pressure doesn't read pongs either.
                async with connect(
                    self.url, compression=None, proxy=None, ping_interval=None, close_timeout=2, max_size=2**24
                ) as socket:
                    open_socket = socket
                    await self._hello(socket)
                    attempt, since = 0, time.monotonic()
                    try:
                        await self._converse(socket)
                    finally:
                        since = time.monotonic()  # the daemon was there until now, whatever ended it
            except StreamError as error:
                if error.code not in (PASSING if self.id is None else PASSING_LATER):
                    raise
                reason = str(error)
            except InvalidStatus as error:
                if error.response.status_code != 503:
                    raise StreamError("refused", f"{self.url} answered {error}") from error
                reason = str(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                reason = str(error) or type(error).__name__
            except asyncio.CancelledError:
                if open_socket is not None:
                    open_socket.transport.abort()  # cancelled amid the closing handshake, it would stay open
                raise
            if self._finished:
                return
            if time.monotonic() - since > self._retry_seconds:
                raise StreamError("unreachable", f"no daemon at {self.url} for {self._retry_seconds:g} s ({reason})")
            first, longest = self._delays
            # Full jitter: a thousand clients of a restarted daemon must not come back in step.
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(longest, first * 2 ** min(attempt, 30)))
            attempt += 1
            log.info("reconnecting", extra={"stream": self.id, "reason": reason})

    async def _hello(self, socket: ClientConnection) -> None:
        """Start or resume, and put the replay buffer where the daemon stands."""
        resume = {"type": "resume", "stream": self.id, "seq": self.seq, **self._resume_as}
        await socket.send(json.dumps(self._start if self.id is None else resume))
        frame = json.loads(await socket.recv())
        if frame["type"] == "error":
            # Killed before its first checkpoint: everything is still here, so the stream simply begins again.
            if frame["code"] == "unknown_stream" and self.acknowledged == 0:
                self.id = None
                frame["code"] = "starting"
            raise StreamError(frame["code"], frame["message"], frame.get("retry_after"))
        position = int(frame["position"])
        self.reconnects += self._opened.is_set()
        if not self._opened.is_set():  # a key that was used before goes on where it was
            self.position = self.acknowledged = position
            self.seq = int(frame.get("seq", 0))
        self._row_bytes = int(frame.get("row_bytes", self._row_bytes))
        self._rewind(position)
        self.id, self.ready = frame["stream"], frame
        self._opened.set()

    async def _converse(self, socket: ClientConnection) -> None:
        writer = asyncio.create_task(self._write(socket))
        told: dict[str, Any] | None = None  # the event whose binary frame comes next
        try:
            async for message in socket:
                if isinstance(message, bytes):
                    if told is not None:
                        self._receive(self._with_body(told, message))
                    told = None
                elif self._has_body(event := json.loads(message)):
                    told = event
                else:
                    self._receive(event)
                if self._finished:
                    return
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, WebSocketException):
                await writer

    def _has_body(self, event: Mapping[str, Any]) -> bool:
        """A binary frame follows this event."""
        return bool(event["type"] == "audio")

    def _with_body(self, event: dict[str, Any], body: bytes) -> dict[str, Any]:
        return event | {"pcm": base64.b64encode(body).decode("ascii")}

    async def _write(self, socket: ClientConnection) -> None:
        while True:
            while self._outgoing:
                item = self._outgoing.popleft()
                self._unacked.append(item)
                await socket.send(item.data)
            self._changed.clear()
            await self._changed.wait()

    # -- the replay buffer -------------------------------------------------------------------------------------------

    def _rewind(self, position: int) -> None:
        """The daemon goes on from row ``position``: what lies behind it goes out again.

        Control frames standing exactly there go too, because nobody knows whether they arrived; the daemon ignores
        repeats. What lies before stays until it is acknowledged: the next crash may fall back further.
        """
        if position < self.acknowledged:
            text = f"row {self.acknowledged} was acknowledged, but the daemon stands at {position}"
            raise StreamError("lost", text + ": its state directory was lost or is older than this stream")
        kept: deque[_Item] = deque()
        again: deque[_Item] = deque()
        for item in (*self._unacked, *self._outgoing):
            if isinstance(item.data, str):
                (kept if item.end < position else again).append(item)
            elif item.start < position < item.end:
                cut = self._row_bytes * (position - item.start)
                kept.append(_Item(item.start, position, item.data[:cut]))
                again.append(_Item(position, item.end, item.data[cut:]))
            else:
                (kept if item.end <= position else again).append(item)
        self._unacked, self._outgoing = kept, again
        self._changed.set()

    def _acknowledge(self, position: int) -> None:
        self.acknowledged = max(self.acknowledged, position)
        while self._unacked:
            item = self._unacked[0]
            if item.end > position or (item.start == item.end == position):
                break
            self._unacked.popleft()
            self._held -= len(item.data)
        self._room.set()

    def _receive(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "ack":
            self._acknowledge(int(event["position"]))
        elif kind == "error":
            error = StreamError(event["code"], event["message"], event.get("retry_after"))
            if event.get("fatal", True):
                raise error
            log.warning("the daemon complains", extra={"code": error.code, "reason": error.message})
        elif (seq := event.get("seq")) is not None and seq > self.seq:  # else given out before a crash, seen then
            self.seq = seq
            if kind == "end":
                self._finished = True
                self._room.set()
            self._events.put_nowait(event)
