"""A WebSocket connection: websockets' codec in a plain asyncio protocol, to which uvicorn hands upgraded connections.

Why not ASGI: a queue, a task switch and a pause/resume of the transport per message cost more than the message; ASGI
doesn't show how much is unsent, and can't drop a client that never reads (``close`` waits for the buffer to empty, for
ever). Here a binary frame goes from the parser to the session by plain calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, cast

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # in C where that is built
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from streamer import tracing
from streamer.serve.access.gate import Access
from streamer.serve.access.grant import ANYONE, Denied, Grant
from streamer.serve.connections import unavailable
from streamer.serve.frames import Cutter, JoinedFrames, clip_reason
from streamer.serve.handshakes import Handshakes
from streamer.serve.responder import Responder
from streamer.serve.stream.protocol import Binary, WireError, encode
from streamer.serve.traced import request_headers
from streamer.serve.turns import Turns
from streamer.serve.upgrades import choose_subprotocol, factory_of, grant_of_upgrade, headers_of_upgrade, path_of

__all__ = ["Socket"]

log = logging.getLogger(__name__)

#: Seconds that one connection's messages take of the event loop before others have their turn.
TURN = 0.0005
WHOLE_PING = 0x89
SHORTEST_MASKED, LONGEST_CONTROL = 6, 131
REQUEST_ENDS = b"\r\n\r\n"
#: Bytes before the handshake, beyond which no more is read.
MOST_BEFORE = 16 * 1024
#: Close codes of connections that ended as they should.
WELL = (1000, 1001, 1005, 1012)


class Socket(asyncio.Protocol):
    """``access``: checks the client's token, host and origin. ``admit(path)``: a :class:`Responder` factory, or an HTTP
    status and text for the refusal. ``grant``: what the client may do.

    The bytes of one read of the socket are handled for :data:`TURN` seconds at a time. No more is read until all are
    handled, nor while the peer, the grant's bound of bytes, or a client that does not read its pongs pauses the socket.

    ``handshake_seconds``: time for the request, if no HTTP server in front of this one has read it. ``route``: the path
    whose scope is needed for any path that the client asks for; ``None``: that of the client's path.
    """

    def __init__(
        self,
        *,
        config: Any,
        server_state: Any,
        app_state: dict[str, Any],
        access: Access,
        admit: Callable[[str], Callable[[Socket], Responder] | tuple[int, str]],
        turns: Turns,
        handshakes: Handshakes,
        max_frame_bytes: int,
        ping_seconds: float,
        send_seconds: float,
        linger_seconds: float,
        handshake_seconds: float | None = None,
        route: str | None = None,
    ):
        self.loop = asyncio.get_running_loop()
        self._connections: set[Any] = server_state.connections
        self._access, self._admit, self._turns, self._handshakes = access, admit, turns, handshakes
        self.grant: Grant = ANYONE
        self.span: tracing.Span | None = None  # from the handshake to the end
        self._ping_seconds = ping_seconds
        self._send_seconds = send_seconds
        self._linger_seconds = linger_seconds
        self._handshake_seconds, self._route = handshake_seconds, route
        #: The client's path and query, from the handshake on.
        self.target = ""
        # no extensions: audio doesn't deflate, bombs do
        self._codec = ServerProtocol(max_size=max_frame_bytes, select_subprotocol=choose_subprotocol)
        self._max_frame_bytes = max_frame_bytes
        self._cutter: Cutter | None = None  # set after the handshake
        self._asked = False  # the request is whole
        self._new = True  # nothing came behind the handshake yet
        self._peer: Responder | None = None
        self._joined = JoinedFrames()
        self._uncut: Iterator[tuple[bytes, int]] | None = None  # frames of the last read that are not handled yet
        self._late = bytearray()  # bytes read after these frames
        self._in_turns = False
        self._paused = False  # by the peer
        self._reading = True
        self._waiting: asyncio.TimerHandle | None = None  # not read: more came than the grant allows
        self._pong: bytes | None = None  # payload of the last ping that has no answer yet
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
        if self.grant.bytes is not None and (seconds := self.grant.spend(len(data))):
            self._wait(seconds)
        if self._cutter is None:
            self._ask(data)
        elif self._uncut is not None:
            self._late += data
        else:
            self._cut(self._cutter, data)

    def _ask(self, data: bytes) -> None:
        """Collect the request; once it is whole, wait for the turn to answer it."""
        self._late += data
        if not self._asked and REQUEST_ENDS in self._late:
            self._asked = True
            if self._overdue is not None:
                self._overdue.cancel()
            self._handshakes.wait(self)
        elif not self._asked and len(self._late) > MOST_BEFORE:
            self._transport.abort()
        self._read_or_not()

    def arrive(self) -> None:
        """It is this connection's turn: answer its request."""
        head, mark, rest = bytes(self._late).partition(REQUEST_ENDS)
        self._late = bytearray()
        try:
            self._decode(head + mark)
            self._flush()
            self._read_or_not()
            if self._cutter is not None and rest:
                self._new = False  # its time is part of the turn
                self.data_received(rest)
        except Exception:
            self._transport.abort()
            raise

    def turn_away(self, why: str, seconds: float) -> None:
        """Refuse the connection before its request is looked at."""
        self.closing = True
        self._transport.write(unavailable(f"{why}: try again later\n", seconds))
        self._transport.close()

    def _cut(self, cutter: Cutter, data: bytes) -> None:
        began = monotonic()
        self._uncut = cutter.cut(data)
        if self._work():
            self._turns.wait(self._work)
        if self._new:
            self._new = False
            self._handshakes.spend(monotonic() - began)

    def _work(self) -> bool:
        """Handle some of the frames that were read. True if more can be handled."""
        until = monotonic() + TURN
        self._in_turns, more = True, False
        while self._uncut is not None and not more and not self._paused and not self._transport.is_closing():
            for frame, payload in self._uncut:
                self._whole(frame, payload)
                if self._paused:
                    break
                if monotonic() >= until:
                    more = True
                    break
            else:
                late, self._late = bytes(self._late), bytearray()
                self._uncut = self._cutter.cut(late) if late and self._cutter is not None else None
        self._flush()
        self._in_turns = more
        self._read_or_not()
        return more

    def _whole(self, frame: bytes, payload: int) -> None:
        """Handle a whole frame. ``payload``: offset of a final binary frame's payload, 0 for all others."""
        live = not self.closing and self._codec.state is OPEN
        if payload and not self._joined.begun and live:
            self._joined.text = False
            self._message(apply_mask(frame[payload:], frame[payload - 4 : payload]))
        elif live and frame[0] == WHOLE_PING and SHORTEST_MASKED <= len(frame) <= LONGEST_CONTROL and frame[1] >= 128:
            self._pong = apply_mask(frame[6:], frame[2:6])  # only the last ping is answered (RFC 6455, 5.5.3)
        else:
            self._decode(frame)

    def _decode(self, data: bytes) -> None:
        """Let the codec handle bytes that are not whole binary frames or pings."""
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
        self._handshakes.leave(self)
        self.closing = True
        for timer in (self._ping_timer, self._stall_timer, self._close_timer, self._waiting, self._overdue):
            if timer is not None:
                timer.cancel()
        if self._peer is not None:
            peer, self._peer = self._peer, None
            sent, received = self._codec.close_sent, self._codec.close_rcvd
            code = sent.code if sent else received.code if received else 1006
            peer.on_closed(code)
            if self.span is not None:
                self.span.end(str(code) if code not in WELL else "", **{"streamer.close_code": code})

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
        self._flush()
        self._read_or_not()

    def shutdown(self) -> None:
        """uvicorn is going down."""
        self.close(1012, "the daemon restarts")

    # -- for the peer ------------------------------------------------------------------------------------------------

    def send(self, frames: list[bytes]) -> None:
        """Send frames in one write: binary ones if they are :class:`Binary`, else text."""
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
        if not self.closing:
            self._paused = True
            self._read_or_not()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._heard = True  # pongs lay in the kernel meanwhile
            if self._uncut is not None and not self._in_turns:
                self._in_turns = True
                self._turns.wait(self._work)
            self._read_or_not()

    def _read_or_not(self) -> None:
        wanted = not self._paused and self._uncut is None and (self._pong is None or self.writable)
        wanted = wanted and self._waiting is None and (self._cutter is not None or len(self._late) <= MOST_BEFORE)
        if wanted is not self._reading and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def close(self, code: int, reason: str) -> None:
        """Send the reason, and drop the connection once the client has answered or ``linger_seconds`` have passed."""
        if self.closing or self._transport.is_closing():
            return
        if self._cutter is None and self._asked:
            self._handshakes.leave(self)
            self.turn_away(reason, 1.0)
            return
        if self._codec.state is OPEN:
            self._codec.send_close(code, clip_reason(reason))
        self._linger()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _handshake(self, request: Request) -> None:
        self.target = request.path
        response: Response = self._codec.accept(request)
        headers, peer = headers_of_upgrade(request), None
        if response.status_code == 101:
            address = (self._transport.get_extra_info("peername") or ("",))[0]
            try:
                self.grant = grant_of_upgrade(self._access, request, headers, address, self._route)
                peer = factory_of(self._admit, request)
            except Denied as denied:
                response = self._codec.reject(denied.status, denied.message.rstrip("\n") + "\n")
                response.headers.update(denied.headers)
        self._codec.send_response(response)
        self._flush()
        if peer is None:
            self.closing = True
            self._transport.close()
            return
        self.span = tracing.begin("connection", {"url.path": path_of(request)}, request_headers(headers))
        with tracing.under(self.span):
            self._peer = peer(self)
        self._cutter = Cutter(self._max_frame_bytes)
        self._ping_timer = self.loop.call_later(self._ping_seconds, self._ping)

    def _wait(self, seconds: float) -> None:
        """Stop reading for ``seconds``: the client's send buffer fills, so that it sends no faster than its token
        may."""
        if self.closing:
            return
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = self.loop.call_later(seconds, self._go_on)
        self._read_or_not()

    def _go_on(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
            self._heard = True
            self._read_or_not()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:  # the codec has queued the answer
            self._flush()
            self.closing = True
            self._transport.close()
        elif (data := self._joined.add(frame)) is not None:
            self._message(data)

    def _message(self, data: bytes) -> None:
        if self._peer is not None and not self.closing:
            self._peer.on_message(data, self._joined.text)

    def _broken(self, error: Exception) -> None:
        """The parser failed and has queued a close frame. An error frame goes first, as in every refusal."""
        if isinstance(error, PayloadTooBig):
            text = f"a message of more than {self._max_frame_bytes} bytes (max_frame_bytes): send shorter ones"
            frame = encode(WireError("too_long", text).to_dict())
            self._transport.write(Frame(Opcode.TEXT, frame).serialize(mask=False))
        log.info("connection dropped", extra={"error": str(error)})
        self._linger()

    def _linger(self) -> None:
        self.closing = True
        self._pong = None
        self._flush()
        self._go_on()
        self.resume()
        self._read_or_not()
        # The codec discards what still comes. To close with unread data would send a reset that overtakes the reason.
        seconds = self._linger_seconds if self.writable else self._send_seconds
        self._close_timer = self.loop.call_later(seconds, self._transport.abort)

    def _ping(self) -> None:
        if not self._heard and self._reading and self._waiting is None:
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
        if self._pong is not None and self.writable:
            pong, self._pong = self._pong, None
            if self._codec.state is OPEN:
                self._codec.send_pong(pong)
        if output := self._codec.data_to_send():
            if not self._transport.is_closing():
                self._transport.write(b"".join(output))
            if output[-1] == b"" and self._transport.can_write_eof():  # the codec's mark for end of file
                self._transport.write_eof()
