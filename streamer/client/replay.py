"""One stream over a WebSocket that reconnects: data is kept until it is acknowledged, and sent again after a loss.

Every sent frame stays in a replay buffer until an ``ack`` covers it. After a lost connection the client resumes,
receives a ``position``, sends again from there, and drops the events whose ``seq`` it has seen. This module counts rows
and splits bytes; subclasses define the content of a row.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self, Unpack, cast

from websockets.exceptions import InvalidStatus, WebSocketException

from streamer.client.bounds import ReplayBounds
from streamer.client.buffer import Item, ReplayBuffer
from streamer.client.connection import Connection, dial, followed, socket_url, tls_advice, tls_trouble, without_secrets
from streamer.client.errors import ASLEEP, MOVED, PASSING, PASSING_LATER, StreamError

__all__ = ["ReplayBounds", "ReplayClient", "StreamError"]

log = logging.getLogger(__name__)

#: Maximum size of a binary frame, unless one row is longer. A daemon refuses frames above its ``max_frame_bytes``.
FRAME_BYTES = 256 * 1024


class ReplayClient:
    """The base of all clients: an async context manager and an async iterator of events (dictionaries as on the wire).

    ``url``: the daemon's, with or without the path. ``start``: the first frame of a new stream. ``row_bytes``: size of
    one row; 0 until the ``ready`` frame announces it. ``bounds``: see :class:`.bounds.ReplayBounds`.
    """

    def __init__(
        self,
        url: str,
        start: Mapping[str, Any],
        row_bytes: int = 0,
        **bounds: Unpack[ReplayBounds],
    ):
        self.url = socket_url(url)
        self._start = dict(start)
        self._resume_as: dict[str, Any] = {}  # further fields of a ``resume`` frame
        self._row_bytes = row_bytes
        self._token, self._ca = bounds.get("token"), bounds.get("ca")
        self._max_unacked = bounds.get("max_unacked_bytes", 64 * 2**20)
        self._retry_seconds = bounds.get("retry_seconds", 60.0)
        self._delays = (bounds.get("first_delay", 0.1), bounds.get("max_delay", 5.0))
        self._hello_seconds = bounds.get("hello_seconds", 30.0)
        self._silence_seconds = bounds.get("silence_seconds", 60.0)
        self._close_seconds = bounds.get("close_seconds", 10.0)
        self._buffer = ReplayBuffer()
        self._sending = asyncio.Lock()  # the frames of one call stay together
        self._changed = asyncio.Event()  # a frame is queued, or a sleeping stream is needed
        self._sent = asyncio.Event()  # all frames are sent
        self._acked = asyncio.Event()  # an acknowledgement arrived, or none will
        self._events: deque[dict[str, Any]] = deque()
        self._received = asyncio.Event()  # an event arrived, or none will
        self._error: StreamError | None = None
        self._error_raised = False
        self._task: asyncio.Task[None] | None = None
        self._socket: Connection | None = None
        self._opened = asyncio.Event()
        self._ending = False  # nothing may be sent any more
        self._finished = False
        self._over = False  # no further event will arrive
        self._fresh = False  # a frame was queued since the stream was last found asleep
        #: Number of rows of the stream that were sent, including those of earlier connections with the same key.
        self.position = 0
        self.seq = 0
        #: The stream's id, the last ``ready`` frame, and how often the client reconnected.
        self.id: str | None = None
        self.ready: dict[str, Any] = {}
        self.reconnects = 0

    # -- for the user ------------------------------------------------------------------------------------------------

    @property
    def acknowledged(self) -> int:
        """Number of rows that the daemon has acknowledged, that is, written to its disk."""
        return self._buffer.acknowledged

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        try:
            await self._opened.wait()
            self._check()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Wait until the daemon has read everything (``close_seconds``), then raise the stream's error if it was not
        raised before. If an exception leaves the block, close at once."""
        try:
            if kind is None:
                await self._flush()
                if not self._error_raised:
                    self._check()
        finally:
            await self.close()

    async def send_bytes(self, data: bytes) -> None:
        """Send whole rows, little-endian. Waits while the replay buffer is full. Raises ``ValueError`` for half a row,
        and :class:`StreamError`.

        A cancelled call may have sent a part of the rows: ``position`` counts them.
        """
        if len(data) % self._row_bytes:
            raise ValueError(f"{len(data)} bytes are not a whole number of rows of {self._row_bytes} bytes")
        longest = max(1, FRAME_BYTES // self._row_bytes) * self._row_bytes
        async with self._sending:
            self._check_open()
            for at in range(0, len(data), longest):
                piece = bytes(data[at : at + longest])
                while self._buffer.held and self._buffer.held + len(piece) > self._max_unacked and not self._over:
                    await self._acknowledgement()
                end = self.position + len(piece) // self._row_bytes
                self._put(Item(self.position, end, piece))
                self.position = end

    async def marker(self, id: str) -> None:
        """Ask for a ``marker`` event once everything sent so far is decoded."""
        self._put(Item(self.position, self.position, json.dumps({"type": "marker", "id": id})))

    async def end(self) -> None:
        """End the stream: no rows follow. The last event is of type ``end``."""
        self._put(Item(self.position, self.position, '{"type":"end"}'))
        self._ending = True

    async def safe(self, position: int | None = None) -> None:
        """Wait until the first ``position`` rows (default: all sent so far) are acknowledged."""
        position = self.position if position is None else position
        while self.acknowledged < position and not self._over and not self._finished:
            await self._acknowledgement()
        self._check()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self._iterate()

    async def close(self) -> None:
        """Close at once, without sending what is queued; the daemon keeps the stream for its grace time."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _iterate(self) -> AsyncIterator[dict[str, Any]]:
        while (event := await self._next()) is not None:
            yield event
        self._check()

    async def _acknowledgement(self) -> None:
        """Wait for the next acknowledgement, or until none will arrive."""
        self._changed.set()  # a sleeping stream is resumed, which gives its position
        self._acked.clear()
        await self._acked.wait()

    async def _next(self) -> dict[str, Any] | None:
        """The next event; ``None`` at the end, also when called again."""
        while not self._events and not self._over:
            self._received.clear()
            await self._received.wait()
        return self._events.popleft() if self._events else None

    def _check(self) -> None:
        """Raise the stream's error, if it has failed."""
        if self._error is not None:
            self._error_raised = True
            raise self._error

    def _check_open(self) -> None:
        self._check()
        if self._ending or self._finished or self._over:
            raise StreamError("ended", "the stream has ended: open another one")

    def _put(self, item: Item) -> None:
        self._check_open()
        self._buffer.put(item)
        self._fresh = True
        self._sent.clear()
        self._changed.set()

    async def _flush(self) -> None:
        """Wait until the daemon has read all sent data, which may still be in a socket or wait for room in a buffer.

        The daemon answers a ping once it has read everything before the ping. It answers a second ping only once it
        reads on, that is, once it had room for the data before.
        """
        if self._error is not None or not (self._buffer.waiting or self._ending or self.acknowledged < self.position):
            return
        self._changed.set()
        try:
            async with asyncio.timeout(self._close_seconds):
                while not (self._over or self._finished):
                    await self._sent.wait()
                    socket = self._socket
                    assert socket is not None  # frames were sent on it
                    try:
                        for _ in range(2):
                            await (await socket.ping())
                        return
                    except (OSError, WebSocketException):
                        if socket is self._socket:
                            self._sent.clear()  # until everything is sent on the next connection
        except TimeoutError:
            text = f"the daemon has not read everything within {self._close_seconds:g} s (close_seconds)"
            raise StreamError("closed", text) from None

    # -- the connection ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._keep_connected()
        except StreamError as error:
            self._error = error
        except asyncio.CancelledError:
            self._error = self._error or StreamError("closed", "the client was closed")
            raise
        except Exception as error:  # a bug here must not leave the caller waiting for ever
            self._error = StreamError("internal", repr(error))
            log.exception("the stream client failed")
        finally:
            self._over = True
            for waited_for in (self._opened, self._acked, self._sent, self._received):
                waited_for.set()

    async def _keep_connected(self) -> None:
        attempt, since = 0, time.monotonic()
        while not self._finished:
            reason, open_socket, asleep = "connection lost", None, False
            try:
                async with dial(self.url, self._token, self._ca) as connection:
                    open_socket = socket = cast(Connection, connection)
                    async with asyncio.timeout(self._hello_seconds):
                        await self._hello(socket)
                    attempt, since = 0, time.monotonic()
                    try:
                        await self._converse(socket)
                    finally:
                        since = time.monotonic()  # the daemon was reachable until now
            except StreamError as error:
                asleep = error.code in ASLEEP and self.id is not None
                if error.code == MOVED and error.url is not None:
                    self.url, attempt, since = followed(self.url, error.url), 0, time.monotonic()
                elif not asleep and error.code not in (PASSING if self.id is None else PASSING_LATER):
                    raise
                reason = str(error)
            except InvalidStatus as error:
                if error.response.status_code not in (429, 503):
                    body = (error.response.body or b"").decode(errors="replace").strip() or str(error)
                    text = f"{without_secrets(self.url)} answered {error.response.status_code}: {body[:300]}"
                    raise StreamError("refused", text) from error
                reason = str(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                if self.id is None and (trouble := tls_trouble(error, self.url)) is not None:
                    raise StreamError("refused", trouble) from error
                reason = (str(error) or type(error).__name__) + tls_advice(error, self.url)
            except asyncio.CancelledError:
                if open_socket is not None:
                    open_socket.transport.abort()  # a cancelled closing handshake would leave it open
                raise
            if self._finished:
                return
            if asleep:
                await self._until_needed()
                attempt, since = 0, time.monotonic()
                continue
            if time.monotonic() - since > self._retry_seconds:
                raise StreamError(
                    "unreachable", f"no daemon at {without_secrets(self.url)} for {self._retry_seconds:g} s ({reason})"
                )
            first, longest = self._delays
            # Jitter: a thousand clients of a restarted daemon must not reconnect at the same time.
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(longest, first * 2 ** min(attempt, 30)))
            attempt += 1
            log.info("reconnecting", extra={"stream": self.id, "reason": reason})

    async def _until_needed(self) -> None:
        """Wait until a suspended stream is needed. Returns at once if data was sent before the client learned of the
        suspension."""
        crossed = self._fresh and bool(self._buffer)
        self._fresh = False
        if not crossed:
            self._changed.clear()
            await self._changed.wait()

    async def _hello(self, socket: Connection) -> None:
        """Start or resume, and rewind the replay buffer to the daemon's position."""
        resume = {"type": "resume", "stream": self.id, "seq": self.seq, **self._resume_as}
        await socket.send(json.dumps(self._start if self.id is None else resume))
        frame = json.loads(await socket.recv())
        if frame["type"] == "error":
            # The daemon was killed before the first checkpoint. The buffer holds all rows, so a new stream starts.
            if frame["code"] == "unknown_stream" and self.acknowledged == 0:
                self.id = None
                frame["code"] = "starting"
            raise StreamError(frame["code"], frame["message"], frame.get("retry_after"), frame.get("url"))
        position = int(frame["position"])
        self.reconnects += self._opened.is_set()
        if not self._opened.is_set():  # the stream of a key that was used before continues at its position
            self.position = position
            self._buffer.acknowledge(position)
            self.seq = int(frame.get("seq", 0))
        self._row_bytes = int(frame.get("row_bytes", self._row_bytes))
        if position < self.acknowledged:
            text = f"row {self.acknowledged} was acknowledged, but the daemon is at row {position}"
            raise StreamError("lost", text + ": its state directory was lost or is older than this stream")
        self._buffer.rewind(position, self._row_bytes)
        self._sent.clear()
        self.id, self.ready, self._socket = frame["stream"], frame, socket
        self._opened.set()

    async def _converse(self, socket: Connection) -> None:
        """Read and write until the stream ends. Raises the error that ends the connection."""
        reader = asyncio.create_task(self._read(socket))

        async def write() -> None:
            try:
                await self._write(socket)
            except (OSError, WebSocketException):
                await asyncio.wait([reader])  # the daemon's reason may still be unread

        async def watch() -> None:
            await socket.watch(self._silence_seconds)
            raise TimeoutError(f"nothing arrived for {self._silence_seconds:g} s (silence_seconds)")

        tasks = [reader, asyncio.create_task(write()), asyncio.create_task(watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, socket: Connection) -> None:
        header: dict[str, Any] | None = None  # the event whose binary frame is next
        async for message in socket:
            if isinstance(message, bytes):
                if header is not None:
                    self._receive(self._with_body(header, message))
                header = None
            elif self._has_body(event := json.loads(message)):
                header = event
            else:
                self._receive(event)
            if self._finished:
                return

    def _has_body(self, event: Mapping[str, Any]) -> bool:
        """Whether a binary frame follows this event."""
        return bool(event["type"] == "audio")

    def _with_body(self, event: dict[str, Any], body: bytes) -> dict[str, Any]:
        return event | {"pcm": base64.b64encode(body).decode("ascii")}

    async def _write(self, socket: Connection) -> None:
        while True:
            while self._buffer.waiting:
                await socket.send(self._buffer.send_next())
            self._sent.set()
            self._changed.clear()
            await self._changed.wait()

    def _receive(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "ack":
            self._buffer.acknowledge(int(event["position"]))
            self._acked.set()
        elif kind == "error":
            error = StreamError(event["code"], event["message"], event.get("retry_after"), event.get("url"))
            if event.get("fatal", True):
                raise error
            log.warning("the daemon reported an error", extra={"code": error.code, "reason": error.message})
        elif (seq := event.get("seq", 0)) > self.seq or (kind == "partial" and not seq):  # else seen before a crash
            self.seq = max(self.seq, seq)  # a partial without a number overtakes finals that wait for the second pass
            if kind == "end":
                self._finished = True
                self._acked.set()
            self._events.append(event)
            self._received.set()
