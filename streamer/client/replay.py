"""One stream over a WebSocket that reconnects: data is kept until it is acknowledged, and sent again after a loss.

Every sent frame stays in a replay buffer until an ``ack`` covers it. After a lost connection the client resumes, gets a
``position``, sends again from there, and drops the events whose ``seq`` it has seen. Subclasses define what a row is:
this module counts rows and cuts bytes.
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
from streamer.client.connection import Connection, dial, followed, socket_url, without_secrets
from streamer.client.errors import ASLEEP, MOVED, PASSING, PASSING_LATER, StreamError

__all__ = ["ReplayBounds", "ReplayClient", "StreamError"]

log = logging.getLogger(__name__)

#: The longest binary frame, or one row if that is longer. A daemon refuses frames above its ``max_frame_bytes``.
FRAME_BYTES = 256 * 1024


class ReplayClient:
    """``url`` with or without the path. ``start``: the first frame of a new stream. ``row_bytes``: size of one row; 0
    until the ``ready`` frame announces it."""

    def __init__(
        self,
        url: str,
        start: Mapping[str, Any],
        row_bytes: int = 0,
        **bounds: Unpack[ReplayBounds],
    ):
        self.url = socket_url(url)
        self._start = dict(start)
        self._resume_as: dict[str, Any] = {}  # what a resume says beside the stream
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
        self._changed = asyncio.Event()  # something to send, or a sleeping stream is wanted
        self._sent = asyncio.Event()  # nothing is left to be sent
        self._room = asyncio.Event()
        self._events: deque[dict[str, Any]] = deque()
        self._told = asyncio.Event()  # an event came, or the last one has
        self._error: StreamError | None = None
        self._error_told = False
        self._task: asyncio.Task[None] | None = None
        self._socket: Connection | None = None
        self._opened = asyncio.Event()
        self._ending = False  # nothing may be sent any more
        self._finished = False
        self._over = False  # no event comes any more
        self._fresh = False  # something was sent since the stream was last found asleep
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
        """Number of rows that the daemon has acknowledged, that is written to its disk."""
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
        """Unless an exception is being raised: wait until the daemon has read everything (``close_seconds``), then
        raise the stream's error if it was not raised before."""
        try:
            if kind is None:
                await self._flush()
                if not self._error_told:
                    self._check()
        finally:
            await self.close()

    async def send_bytes(self, data: bytes) -> None:
        """Whole rows, little-endian. Waits while the replay buffer is full. Raises :class:`StreamError`.

        A call that is cancelled may have sent a part: ``position`` says how much.
        """
        if len(data) % self._row_bytes:
            raise ValueError(f"{len(data)} bytes are no whole number of rows of {self._row_bytes} bytes")
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
        """No more samples. The ``end`` event is the last one."""
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
        self._changed.set()  # of a stream that sleeps: see what became of its rows
        self._room.clear()
        await self._room.wait()

    async def _next(self) -> dict[str, Any] | None:
        """The next event; ``None`` at the end, also when called again."""
        while not self._events and not self._over:
            self._told.clear()
            await self._told.wait()
        return self._events.popleft() if self._events else None

    def _check(self) -> None:
        """Raise the stream's error, if it has failed."""
        if self._error is not None:
            self._error_told = True
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
        """Wait until the daemon has read what was sent, which may still be in a socket or wait for a full buffer.

        A ping is answered once everything before it was read; a second one only once the daemon reads on, that is, had
        room for the data before it.
        """
        if self._error is not None or not (self._buffer.waiting or self._ending or self.acknowledged < self.position):
            return
        self._changed.set()
        try:
            async with asyncio.timeout(self._close_seconds):
                while not (self._over or self._finished):
                    await self._sent.wait()
                    socket = self._socket
                    assert socket is not None  # it was open
                    try:
                        for _ in range(2):
                            await (await socket.ping())
                        return
                    except (OSError, WebSocketException):
                        if socket is self._socket:
                            self._sent.clear()  # until it is all sent on the next one
        except TimeoutError:
            text = f"the daemon has not taken everything within {self._close_seconds:g} s (close_seconds)"
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
        except Exception as error:  # a bug here must not leave the user waiting for ever
            self._error = StreamError("internal", repr(error))
            log.exception("the stream client failed")
        finally:
            self._over = True
            for waited_for in (self._opened, self._room, self._sent, self._told):
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
                        since = time.monotonic()  # the daemon was there until now, whatever ended it
            except StreamError as error:
                asleep = error.code in ASLEEP and self.id is not None
                if error.code == MOVED and error.url is not None:
                    self.url, attempt, since = followed(self.url, error.url), 0, time.monotonic()
                elif not asleep and error.code not in (PASSING if self.id is None else PASSING_LATER):
                    raise
                reason = str(error)
            except InvalidStatus as error:
                if error.response.status_code not in (429, 503):
                    said = (error.response.body or b"").decode(errors="replace").strip() or str(error)
                    text = f"{without_secrets(self.url)} answered {error.response.status_code}: {said[:300]}"
                    raise StreamError("refused", text) from error
                reason = str(error)
            except (OSError, TimeoutError, WebSocketException) as error:
                reason = str(error) or type(error).__name__
            except asyncio.CancelledError:
                if open_socket is not None:
                    open_socket.transport.abort()  # cancelled amid the closing handshake, it would stay open
                raise
            if self._finished:
                return
            if asleep:
                await self._wanted()
                attempt, since = 0, time.monotonic()
                continue
            if time.monotonic() - since > self._retry_seconds:
                raise StreamError(
                    "unreachable", f"no daemon at {without_secrets(self.url)} for {self._retry_seconds:g} s ({reason})"
                )
            first, longest = self._delays
            # Full jitter: a thousand clients of a restarted daemon must not come back in step.
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(longest, first * 2 ** min(attempt, 30)))
            attempt += 1
            log.info("reconnecting", extra={"stream": self.id, "reason": reason})

    async def _wanted(self) -> None:
        """Wait until a suspended stream is needed. Returns at once if data may have crossed the message about it."""
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
            # Killed before its first checkpoint: everything is still here, so the stream simply begins again.
            if frame["code"] == "unknown_stream" and self.acknowledged == 0:
                self.id = None
                frame["code"] = "starting"
            raise StreamError(frame["code"], frame["message"], frame.get("retry_after"), frame.get("url"))
        position = int(frame["position"])
        self.reconnects += self._opened.is_set()
        if not self._opened.is_set():  # a key that was used before goes on where it was
            self.position = position
            self._buffer.acknowledge(position)
            self.seq = int(frame.get("seq", 0))
        self._row_bytes = int(frame.get("row_bytes", self._row_bytes))
        if position < self.acknowledged:
            text = f"row {self.acknowledged} was acknowledged, but the daemon stands at {position}"
            raise StreamError("lost", text + ": its state directory was lost or is older than this stream")
        self._buffer.rewind(position, self._row_bytes)
        self._sent.clear()
        self.id, self.ready, self._socket = frame["stream"], frame, socket
        self._opened.set()

    async def _converse(self, socket: Connection) -> None:
        reader = asyncio.create_task(self._read(socket))

        async def write() -> None:
            try:
                await self._write(socket)
            except (OSError, WebSocketException):
                await asyncio.wait([reader])  # it may still find the daemon's reason

        async def watch() -> None:
            await socket.watch(self._silence_seconds)
            raise TimeoutError(f"nothing came for {self._silence_seconds:g} s (silence_seconds)")

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
        header: dict[str, Any] | None = None  # the event whose binary frame comes next
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
            self._room.set()
        elif kind == "error":
            error = StreamError(event["code"], event["message"], event.get("retry_after"), event.get("url"))
            if event.get("fatal", True):
                raise error
            log.warning("the daemon complains", extra={"code": error.code, "reason": error.message})
        elif (seq := event.get("seq", 0)) > self.seq or (kind == "partial" and not seq):  # else seen before a crash
            self.seq = max(self.seq, seq)  # an event without a number overtakes finals that wait for the second pass
            if kind == "end":
                self._finished = True
                self._room.set()
            self._events.append(event)
            self._told.set()
