"""uvicorn's HTTP connection with the two bounds it lacks: time and bytes until a request is complete.

Without these bounds a client that connects and sends nothing, or never ends its headers, keeps a file descriptor or
fills the memory for ever. Requests that bring readings have longer bodies and more time; a body that is too long is
answered, not cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from streamer.serve.connections import Connections, unavailable
from streamer.serve.turns import Turns

__all__ = ["Http", "JoinedWrites"]

#: The answer to a connection for which there is no room.
REFUSAL = unavailable("all connections (max_http_connections) are in use: try again\n", 1)


class JoinedWrites:
    """A transport that writes an answer's head together with its body: each write is a call of the kernel that may wake
    the client, and costs as much as a fifth of a short answer.

    A write waits for the next one, at most until the loop's turn is over. At most one write waits.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.joined = transport
        self._loop, self._held = loop, b""

    def write(self, data: bytes) -> None:
        if self._held:
            held, self._held = self._held, b""
            self.joined.write(held + data)
        elif data:
            self._held = data
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self.joined.write(held)

    def close(self) -> None:
        self.flush()
        self.joined.close()

    def abort(self) -> None:
        self._held = b""
        self.joined.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.joined, name)


#: Bytes that are parsed at a time while the end of a request's headers or body is not known.
PIECE = 4096
HEAD_ENDS = b"\r\n\r\n"


class Http(HttpToolsProtocol):
    """``long_body(path)``: whether requests to the path bring readings or rows; these have ``body_seconds``, and their
    handlers bound the body.

    A client may send requests before the last one is answered. Each is parsed once the one before is answered, in
    ``turns``, and the socket is not read meanwhile: a connection has one request at a time. A client that does not read
    an answer for ``send_seconds`` is dropped.
    """

    def __init__(
        self,
        *,
        handshake_seconds: float,
        max_request_bytes: int,
        body_seconds: float,
        long_body: Callable[[str], bool],
        connections: Connections,
        linger_seconds: float,
        send_seconds: float,
        turns: Turns,
        **uvicorn: Any,
    ):
        super().__init__(**uvicorn)
        self._handshake_seconds, self._max_request_bytes = handshake_seconds, max_request_bytes
        self._body_seconds, self._long_body = body_seconds, long_body
        self._connections, self._linger_seconds = connections, linger_seconds
        self._send_seconds, self._turns = send_seconds, turns
        self._held, self._at = b"", 0  # bytes that were read, and how many of them are parsed
        self._in_turns = self._paused = False
        self._in_body = False
        self._body_left: int | None = None  # missing bytes of the current body, if known
        self._stalled: asyncio.TimerHandle | None = None
        self._refused = self._upgraded = False
        self._writing = False
        self._patience: float | None = None  # seconds until the current request must be complete
        self._overdue: asyncio.TimerHandle | None = None
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self._refused = not self._connections.opened(self)
        if self._refused:  # its request is read, or its answer would be lost with what was not read
            transport.write(REFUSAL)
        self._hurry(self._linger_seconds if self._refused else None)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._reads()
        self._held, self._at = b"", 0
        self._connections.closed(self)
        super().connection_lost(exc)

    def give_way(self) -> None:
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self.transport.close()
            return
        waits = bool(self._held)
        self._held, self._at = self._held[self._at :] + data, 0
        if waits:
            self._pause()
        elif self._parse():
            self._go_on()
        self._watch()

    def _go_on(self) -> None:
        """Parse more of the held bytes in this connection's turn."""
        self._pause()
        if not self._in_turns:
            self._in_turns = True
            self._turns.wait(self._turn)

    def _turn(self) -> bool:
        self._in_turns = self._parse()
        self._watch()
        return self._in_turns

    def _parse(self) -> bool:
        """Parse the head of one request, its body, and the next one's head if that need not wait. True: there is more
        to parse, in another turn."""
        while self._held and not self.transport.is_closing():
            if self._must_wait():
                self._pause()
                return False
            at, whole = self._at, True
            if self._in_body:
                self._at = at + (PIECE if self._body_left is None else max(1, self._body_left))
            elif (end := self._held.find(HEAD_ENDS, at)) >= 0:
                self._at = end + len(HEAD_ENDS)
            else:
                self._at, whole = at + PIECE, False
            piece = self._held[at : self._at]
            if self._at >= len(self._held):
                self._held, self._at = b"", 0
            self._received += len(piece)
            super().data_received(piece)  # first, since the headers give the length of the rest
            if self._upgraded:
                self._hand_over()
                return False
            if self._received > self._max_request_bytes and not self._writing:
                self.transport.abort()
            elif self._held and not whole:
                return True
        if self._paused and not self._held:
            self._paused = False
            self.flow.resume_reading()
        return False

    def _pause(self) -> None:
        self._paused = True
        self.flow.pause_reading()

    def _hand_over(self) -> None:
        """Pass the bytes after the handshake to the WebSocket."""
        rest, self._held = self._held[self._at :], b""
        if rest and not self.transport.is_closing():
            cast(asyncio.Protocol, self.transport.get_protocol()).data_received(rest)

    def _must_wait(self) -> bool:
        """Whether a complete request has no answer yet."""
        return not self._in_body and self.cycle is not None and not self.cycle.response_complete

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self._send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reads()

    def _reads(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def on_message_begin(self) -> None:
        self._hurry()
        self._writing = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._connections.is_busy(self)
        self._in_body, self._body_left = True, _length(self.headers)
        super().on_headers_complete()
        if self._long_body(self.scope.get("path", "")):
            self._writing = True
            self._in_time()
            self._hurry(self._body_seconds)

    def on_body(self, body: bytes) -> None:
        if self._body_left is not None:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        self._in_time()  # from here on uvicorn's keep-alive timer watches
        self._received = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle is None or self.cycle.response_complete:  # else the next request has come already
            self._connections.is_idle(self)
        if self._held and not self._must_wait():
            self._go_on()

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        self._in_time()
        self._connections.closed(self)
        self.transport.flush()  # type: ignore[attr-defined]
        self.transport = self.transport.joined  # type: ignore[attr-defined]
        super().handle_websocket_upgrade()

    def _hurry(self, seconds: float | None = None) -> None:
        if self._patience is None:
            self._patience = seconds or self._handshake_seconds

    def _watch(self) -> None:
        """Called at the end of a turn: most requests are complete by then, and need no timer."""
        if self._patience is not None and self._overdue is None:
            self._overdue = self.loop.call_later(self._patience, self.transport.abort)

    def _in_time(self) -> None:
        self._patience = None
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """The body's length from the headers; ``None``: they give no valid one."""
    length = next((value for name, value in headers if name == b"content-length"), b"")
    return int(length) if length.isdigit() and len(length) < 20 else None
