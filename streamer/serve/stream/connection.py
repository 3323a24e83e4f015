"""One connection to ``/v1/stream`` meets one session of the registry.

Threads: everything here runs on the event loop, except :meth:`StreamConnection._from_lane`, which lanes call, and work
that may wait for the disk or takes long (:meth:`StreamConnection._later`); the connection's messages wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

from streamer.refusals import BadInput, NotAttached, NotSound, Refused, TooManyMarkers
from streamer.serve.disk_threads import disk_thread
from streamer.serve.parse_threads import json_thread, parse_thread
from streamer.serve.stream.protocol import (
    CLOSE_CODES,
    STREAM_PATH,
    Dialogue,
    End,
    Frame,
    Marker,
    Resume,
    Rows,
    Start,
    WireError,
    encode,
    frames,
    parse_control,
)
from streamer.tracing import under

if TYPE_CHECKING:
    from streamer.serve.stream.connections import StreamConnections
    from streamer.serve.websocket import Socket
    from streamer.streams.session import Session

__all__ = ["StreamConnection", "admit"]

log = logging.getLogger(__name__)

#: A text frame longer than this is parsed in a thread: the event loop serves other streams meanwhile.
SHORT = 16 * 1024
#: Rows of sound at another rate that are taken at a time.
PIECE = 16 * 1024

T = TypeVar("T")


def admit(streams: StreamConnections, path: str) -> Callable[[Socket], StreamConnection] | tuple[int, str]:
    """The factory of the responder at ``path``, or the HTTP refusal, for :class:`streamer.serve.websocket.Socket`."""
    if path != STREAM_PATH:
        return 404, f"no WebSocket at {path[:100]}: streams are at {STREAM_PATH}\n"
    if (why := streams.refusal()) is not None:
        return 503, why
    return lambda socket: StreamConnection(socket, streams)


class StreamConnection:
    """The peer of one socket. The session may outlive it: a lost connection detaches, it does not discard."""

    def __init__(self, socket: Socket, streams: StreamConnections):
        self.socket = socket
        self._streams = streams
        self._registry = streams.registry
        self._settings = streams.settings
        self._dialogue = Dialogue(streams.settings.max_control_bytes)
        self._session: Session | None = None
        self._partials, self._binary = True, False
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        #: Messages that wait for a full buffer, or for a message in a thread; the socket is paused then.
        self._unread: deque[tuple[bytes | NDArray[Any], bool]] = deque()
        self._waiting = False  # for a thread
        self._early: list[list[dict[str, Any]]] = []  # events that came before the ``ready`` frame
        self._sink = self._from_lane  # bound once: the registry compares sinks by identity
        self._done = False  # the stream has ended, or is no longer ours
        self._behind: WireError | None = None  # what came behind the end, and is refused once the results are sent
        timer = socket.loop.call_later(streams.settings.handshake_seconds, self._start_overdue)
        self._handshake: asyncio.TimerHandle | None = timer
        streams.connections.add(self)

    # -- from the socket ---------------------------------------------------------------------------------------------

    def on_message(self, data: bytes, text: bool) -> None:
        if self._unread or self._waiting:  # one read of the socket may hold many messages
            self._unread.append((data, text))
        elif not self._done and self._behind is None:
            self._act(data, text)

    def _act(self, data: bytes | NDArray[Any], text: bool) -> None:
        if not isinstance(data, bytes):
            self._try(lambda: self._feed(data))
        elif not text:
            self._try(lambda: self._binary_rows(data))
        elif len(data) <= SHORT:
            self._try(lambda: self._frame(*self._read(data)))
        else:
            self._later(json_thread(lambda: self._read(data)), lambda found: self._frame(*found))

    def _try(self, call: Callable[[], None]) -> None:
        """Run ``call``; an error ends this stream's connection, and no other."""
        try:
            call()
        except WireError as error:
            if error.code == "bad_order" and self._dialogue.state == "ended" and self._session is not None:
                self._behind = error
            else:
                self._refuse(error)
        except Refused as error:
            self._refuse(WireError(error.reason, error.message, error.retry_after, error.url))
        except NotAttached:  # the sink has the reason and closes the connection; what the client still sent is dropped
            self._unread.clear()
        except BadInput as error:
            if self._session is not None and self._session.state == "closed":
                return  # the stream was detached before: the reason is on its way here, and closes the connection
            self._refuse(WireError(self._code(error), str(error)))
        except Exception:
            log.exception("a stream failed", extra={"stream": self._session.id if self._session else None})
            text = "this stream failed inside the daemon, its log says why: start a new one"
            self._refuse(WireError("internal", text))

    def _code(self, error: BadInput) -> str:
        if isinstance(error, TooManyMarkers):
            return "too_many_markers"
        if isinstance(error, NotSound):
            return "not_pcm"
        return "bad_audio" if self._session is None or self._session.sound else "bad_rows"

    def _later(
        self, work: asyncio.Future[T], then: Callable[[T], None], lost: Callable[[T], None] | None = None
    ) -> None:
        """Wait for ``work`` in a thread, then call ``then`` with its result; messages wait meanwhile. ``lost`` is
        called instead of ``then`` if the connection is gone by then."""
        self._waiting = True
        self.socket.pause()

        def back(future: asyncio.Future[T]) -> None:
            self._waiting = False
            if future.cancelled():  # the daemon is gone
                return
            if not self._done:
                self._try(lambda: then(future.result()))
                self._drained()
            elif future.exception() is None and lost is not None:
                lost(future.result())

        work.add_done_callback(back)

    def on_writable(self) -> None:
        if self._unsent:
            frames = list(self._unsent)
            self._unsent.clear()
            self._unsent_bytes = 0
            self.socket.send(frames)

    def on_stalled(self) -> None:
        if self._done:
            return  # the socket is being closed, and is dropped after its linger time
        self._cut_off("not_reading", f"nothing was read for {self._settings.send_seconds:g} s (send_seconds)")

    def on_closed(self, code: int) -> None:
        self._forget()
        self._streams.metrics.closes.labels(str(code)).inc()
        self._streams.connections.discard(self)

    # -- control -----------------------------------------------------------------------------------------------------

    def _read(self, data: bytes) -> tuple[Frame, NDArray[Any] | None]:
        """Parse a text frame, and the rows that it may hold. In a thread, if it is long."""
        frame = parse_control(data, self._settings.max_control_bytes)
        if not isinstance(frame, Rows) or self._session is None:
            return frame, None
        reader = self._session.reader
        return frame, reader.of_values(frame.values) if frame.inputs is None else reader.of_inputs(frame.inputs)

    def _frame(self, frame: Frame, rows: NDArray[Any] | None) -> None:
        self._dialogue.follow(frame)
        if isinstance(frame, (Start, Resume)):
            self._handshake_over()
            self._partials, self._binary = frame.partials, frame.outputs == "binary"
            if (session := self._awake(frame)) is not None:
                self._opened(session)
            else:
                work = partial(self._start, frame) if isinstance(frame, Start) else partial(self._resume, frame)
                self._later(disk_thread(work), self._opened, lambda session: self._registry.detach(session, self._sink))
        elif self._session is not None and rows is not None:
            self._feed(rows)
        elif self._session is not None and isinstance(frame, Marker):
            self._session.marker(frame.id, self._sink)
        elif self._session is not None and isinstance(frame, End):
            self._session.end(self._sink)

    def _start(self, frame: Start) -> Session:
        grant = self.socket.grant
        with under(self.socket.span):
            return self._registry.open(
                model=frame.model,
                sample_rate=frame.sample_rate,
                sink=self._sink,
                stream=None if frame.key is not None else grant.own(uuid.uuid4().hex),
                key=None if frame.key is None else grant.own(frame.key),
                after_seq=frame.seq,
                overflow=frame.overflow,
                options=frame.options,
                conditions=frame.conditions,
            )

    def _awake(self, frame: Start | Resume) -> Session | None:
        """The session, if it can be opened without waiting for the disk; ``None``: a thread has to look."""
        if isinstance(frame, Resume):
            return self._registry.reattach(self.socket.grant.own(frame.stream), self._sink, after_seq=frame.seq)
        if frame.key is None:
            return self._start(frame)
        return self._registry.rejoin(
            model=frame.model,
            sink=self._sink,
            key=self.socket.grant.own(frame.key),
            after_seq=frame.seq,
            sample_rate=frame.sample_rate,
            options=frame.options,
            conditions=frame.conditions,
        )

    def _resume(self, frame: Resume) -> Session:
        # A half-dead connection must not keep its client out: the newer connection wins, and the older one's sink gets
        # the reason.
        with under(self.socket.span):
            return self._registry.attach(self.socket.grant.own(frame.stream), self._sink, after_seq=frame.seq)

    def _opened(self, session: Session) -> None:
        self._session = session
        session.on_drained = partial(self._streams.outbox.put, self._drained)
        self._send([encode({"type": "ready", **self._registry.describe(session)})])
        log.info("stream attached", extra={"stream": session.id, "position": session.received})
        early, self._early = self._early, []
        for events in early:
            self._deliver(events)

    # -- rows in -----------------------------------------------------------------------------------------------------

    def _binary_rows(self, data: bytes) -> None:
        self._dialogue.rows()
        session = self._session
        assert session is not None  # messages wait until the session is open
        if session.full:
            self._wait_with(data)
        elif len(data) > SHORT and session.resampled:
            self._later(parse_thread(lambda: self._feed_pieces(session, data)), self._fed)
        else:
            session.feed(data, self._sink)
            self._streams.received.inc(len(data))

    def _feed_pieces(self, session: Session, data: bytes) -> NDArray[Any]:
        """Feed rows in a thread until the buffer is full; returns the rest. Piece by piece, since each piece locks the
        stream."""
        rows = session.rows(data)
        for at in range(0, len(rows), PIECE):
            if session.full or self._done:
                return rows[at:]
            piece = rows[at : at + PIECE]
            session.feed_rows(piece, self._sink)
            self._streams.received.inc(piece.nbytes)
        return rows[:0]

    def _fed(self, rest: NDArray[Any]) -> None:
        if len(rest):
            self._wait_with(rest)

    def _feed(self, rows: NDArray[Any]) -> None:
        session = self._session
        assert session is not None
        if session.full:
            self._wait_with(rows)
        else:
            session.feed_rows(rows, self._sink)
            self._streams.received.inc(rows.nbytes)

    def _wait_with(self, data: bytes | NDArray[Any]) -> None:
        self._unread.append((data, False))
        self.socket.pause()

    def _drained(self) -> None:
        """The session's buffer is half empty again: take the waiting messages first, then read the socket."""
        if self._streams.closed is not None:
            return  # draining: after the restart the client sends again what was not fed
        unread, self._unread = self._unread, deque()
        while unread and not self._done:
            self._act(*unread.popleft())
            if self._unread or self._waiting:  # the buffer is full again, or a message is in a thread
                self._unread.extend(unread)
                return
        if not self._done and not self._waiting:
            self.socket.resume()

    # -- events out --------------------------------------------------------------------------------------------------

    def _from_lane(self, events: list[dict[str, Any]]) -> None:
        self._streams.outbox.put(partial(self._deliver, events))

    def _deliver(self, events: list[dict[str, Any]]) -> None:
        if self._done:
            return
        if self._session is None:
            self._early.append(events)
            return
        sent: list[bytes] = []
        for event in events:
            kind = event["type"]
            if self._partials or kind != "partial":
                sent += frames(event, self._binary)
                self._streams.sent(kind).inc()
        self._send(sent)
        last = events[-1]
        if last["type"] == "end" and self._behind is not None:
            self._refuse(self._behind)
        elif last["type"] == "end":
            self._close(1000, "end of stream")
        elif last["type"] == "error":  # given up, or resumed by another connection
            self._close(CLOSE_CODES.get(last["code"], 1011), last["message"])

    def _send(self, frames: list[bytes]) -> None:
        if self.socket.writable and not self._unsent:
            self.socket.send(frames)
            return
        self._unsent.extend(frames)
        self._unsent_bytes += sum(map(len, frames))
        if len(self._unsent) > self._settings.max_unsent_events:
            self._cut_off("not_reading", f"{len(self._unsent)} events wait to be read (max_unsent_events)")
        elif self._unsent_bytes > self._settings.max_unsent_bytes:
            self._cut_off("not_reading", f"{self._unsent_bytes} bytes wait to be read (max_unsent_bytes)")

    # -- the end -----------------------------------------------------------------------------------------------------

    def _start_overdue(self) -> None:
        text = f"no start or resume frame within {self._settings.handshake_seconds:g} s (handshake_seconds)"
        self._refuse(WireError("start_timeout", text))

    def _handshake_over(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
            self._handshake = None

    def _cut_off(self, code: str, message: str) -> None:
        """Cut off a client that doesn't read: the reason is queued behind its unread events, and the socket closes soon
        after."""
        self._streams.metrics.bad_input.labels(code).inc()
        log.warning("client cut off", extra={"code": code, "reason": message})
        self._unsent.clear()  # if the client resumes, it gets them again
        self._unsent_bytes = 0
        self._close(WireError(code, message).close_code, message)

    def _refuse(self, error: WireError) -> None:
        self._streams.metrics.bad_input.labels(error.code).inc()
        log.info("client refused", extra={"code": error.code, "detail": error.message})
        self._unsent.append(encode(error.to_dict()))
        self._close(error.close_code, error.message)

    def _close(self, code: int, reason: str) -> None:
        """Send the remaining events, then the close frame."""
        self.socket.send(list(self._unsent))
        self._forget()
        self.socket.close(code, reason)

    def _forget(self) -> None:
        """Detach from the session, once. The session waits for its client to come back, unless it has ended."""
        self._done = True
        self._handshake_over()
        session, self._session = self._session, None
        self._unsent.clear()
        self._unread.clear()
        self._early.clear()
        if session is not None:
            self._registry.detach(session, self._sink)
