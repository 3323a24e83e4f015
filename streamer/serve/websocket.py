"""A WebSocket connection: websockets' codec in a plain asyncio protocol, to which uvicorn hands upgraded connections.

Why not ASGI: a queue, a task switch and a pause/resume of the transport per message cost more than the message, ASGI
can't see how much is unsent, and can't drop a client that never reads (``close`` waits for the buffer to empty, for
ever). Here a binary frame goes from the parser to the session by plain calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # in C where that is built
from websockets.http11 import Request
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamer.serve.frames import Cutter
from streamer.serve.stream.protocol import Binary, WireError, encode

__all__ = ["Peer", "Socket"]

log = logging.getLogger(__name__)

REALTIME = Subprotocol("realtime")


class Peer(Protocol):
    """Who answers on a connection. All calls come from the event loop; they must not block."""

    def on_message(self, data: bytes, text: bool) -> None: ...
    def on_writable(self) -> None: ...
    def on_stalled(self) -> None: ...
    def on_closed(self, code: int) -> None: ...


class Socket(asyncio.Protocol):
    """``admit(path)`` says who answers: a :class:`Peer` factory, or an HTTP status and text for the refusal.

    ``handshake_seconds``: time for the request, where no HTTP server stands before this one that has read it.
    """

    def __init__(
        self,
        *,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        admit: Callable[[str], Callable[[Socket], Peer] | tuple[int, str]],
        max_frame_bytes: int,
        ping_seconds: float,
        send_seconds: float,
        linger_seconds: float,
        handshake_seconds: float | None = None,
    ):
        self.loop = asyncio.get_running_loop()
        self._connections: set[Any] = server_state.connections
        self._admit = admit
        self._ping_seconds = ping_seconds
        self._send_seconds = send_seconds
        self._linger_seconds = linger_seconds
        self._handshake_seconds = handshake_seconds
        #: Path and query that were asked for, from the handshake on.
        self.target = ""
        # no extensions: audio doesn't deflate, bombs do
        self._codec = ServerProtocol(max_size=max_frame_bytes, select_subprotocol=_subprotocol)
        self._max_frame_bytes = max_frame_bytes
        self._cutter: Cutter | None = None  # once the handshake is over
        self._peer: Peer | None = None
        self._fragments = bytearray()  # joined at once: a list of empty ones would grow without end
        self._text = False
        self._reading = True
        self._heard = True  # anything came since the last ping
        self._ping_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._close_timer: asyncio.TimerHandle | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self.writable = True
        self.closing = False

    # -- from the transport ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        if self._handshake_seconds is not None:
            self._overdue = self.loop.call_later(self._handshake_seconds, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._cutter is None:
            self._decode(data)
        else:
            for frame, payload in self._cutter.cut(data):
                if payload and not self._fragments and not self.closing and self._codec.state is OPEN:
                    self._text = False
                    self._message(apply_mask(frame[payload:], frame[payload - 4 : payload]))
                else:
                    self._decode(frame)
        self._flush()

    def _decode(self, data: bytes) -> None:
        """All but whole binary frames, by the codec."""
        self._codec.receive_data(data)
        if self._codec.parser_exc is not None and not self.closing:
            self._broken(self._codec.parser_exc)
            return
        for event in self._codec.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            elif isinstance(event, Request):
                self._handshake(event)

    def eof_received(self) -> bool | None:
        return None  # closes the transport: there are no half-closed WebSockets

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self.closing = True
        for timer in (self._ping_timer, self._stall_timer, self._close_timer, self._overdue):
            if timer is not None:
                timer.cancel()
        if self._peer is not None:
            peer, self._peer = self._peer, None
            sent, received = self._codec.close_sent, self._codec.close_rcvd
            peer.on_closed(sent.code if sent else received.code if received else 1006)

    def pause_writing(self) -> None:
        self.writable = False
        self._stall_timer = self.loop.call_later(self._send_seconds, self._stalled)

    def resume_writing(self) -> None:
        self.writable = True
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if self._peer is not None and not self.closing:
            self._peer.on_writable()

    def shutdown(self) -> None:
        """uvicorn is going down."""
        self.close(1012, "the daemon restarts")

    # -- for the peer ------------------------------------------------------------------------------------------------

    def send(self, frames: list[bytes]) -> None:
        """Text frames, and binary ones where they are :class:`Binary`, in one write."""
        if self.closing or self._codec.state is not OPEN:
            return
        for frame in frames:
            if isinstance(frame, Binary):
                self._codec.send_binary(frame)
            else:
                self._codec.send_text(frame)
        self._flush()

    def pause(self) -> None:
        """Stop reading: the client's own send buffer fills, and it waits."""
        if self._reading and not self.closing:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._heard = True  # pongs lay in the kernel meanwhile
            self._transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        """Say why, and drop the connection once the client has answered or ``linger_seconds`` have passed."""
        if self.closing or self._transport.is_closing():
            return
        if self._codec.state is OPEN:
            self._codec.send_close(code, _clip(reason))
        self._linger()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _handshake(self, request: Request) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
        self.target = request.path
        admitted = self._admit(request.path.partition("?")[0])
        response = self._codec.accept(request)
        if isinstance(admitted, tuple) and response.status_code == 101:
            response = self._codec.reject(*admitted)
            if admitted[0] == 503:
                response.headers["Retry-After"] = "1"
        self._codec.send_response(response)
        self._flush()
        if response.status_code != 101 or isinstance(admitted, tuple):
            self.closing = True
            self._transport.close()
            return
        self._peer = admitted(self)
        if not self._codec.reader.buffer:  # a client that did not wait for the answer has given the codec its frames
            self._cutter = Cutter(self._max_frame_bytes)
        self._ping_timer = self.loop.call_later(self._ping_seconds, self._ping)

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is Opcode.BINARY or opcode is Opcode.TEXT:
            self._text = opcode is Opcode.TEXT
            if frame.fin:
                self._message(bytes(frame.data))
            else:
                self._fragments = bytearray(frame.data)
        elif opcode is Opcode.CONT:
            self._fragments += frame.data
            if frame.fin:
                data, self._fragments = bytes(self._fragments), bytearray()
                self._message(data)
        elif opcode is Opcode.CLOSE:  # the codec has queued the answer
            self._flush()
            self.closing = True
            self._transport.close()

    def _message(self, data: bytes) -> None:
        if self._peer is not None and not self.closing:
            self._peer.on_message(data, self._text)

    def _broken(self, error: Exception) -> None:
        """The parser gave up and has queued a close frame. An error frame goes first: every refusal looks alike."""
        if isinstance(error, PayloadTooBig):
            text = f"a message of more than {self._max_frame_bytes} bytes (max_frame_bytes): send shorter ones"
            frame = encode(WireError("too_long", text).to_dict())
            self._transport.write(Frame(Opcode.TEXT, frame).serialize(mask=False))
        log.info("connection dropped", extra={"error": str(error)})
        self._linger()

    def _linger(self) -> None:
        self.closing = True
        self._flush()
        self.resume()
        # The codec discards what still comes; closing with unread data would send a reset that overtakes the reason.
        seconds = self._linger_seconds if self.writable else self._send_seconds
        self._close_timer = self.loop.call_later(seconds, self._transport.abort)

    def _ping(self) -> None:
        if not self._heard and self._reading:
            self.close(1011, "no answer to a ping")
            return
        self._heard = False
        if not self.closing and self.writable:
            self._codec.send_ping(b"")
            self._flush()
        self._ping_timer = self.loop.call_later(self._ping_seconds, self._ping)

    def _stalled(self) -> None:
        if self._peer is not None:
            self._peer.on_stalled()

    def _flush(self) -> None:
        if output := self._codec.data_to_send():
            if not self._transport.is_closing():
                self._transport.write(b"".join(output))
            if output[-1] == b"" and self._transport.can_write_eof():  # the codec's mark for end of file
                self._transport.write_eof()


def _subprotocol(codec: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Browsers that speak OpenAI's realtime offer one, and insist on it."""
    return REALTIME if REALTIME in offered else None


def _clip(reason: str) -> str:
    """A close reason may take 123 bytes of UTF-8."""
    return reason.encode()[:120].decode(errors="ignore")
