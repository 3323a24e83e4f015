"""A WebSocket on which messages are answered one after the other, by a coroutine.

The socket is not read while a message is being answered, nor while the client does not read: at most one read of the
socket waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from streamer.refusals import BadInput, NotSound, Refused
from streamer.serve.stream.protocol import CLOSE_CODES

if TYPE_CHECKING:
    from streamer.serve.stream.connections import StreamConnections
    from streamer.serve.websocket import Socket

__all__ = ["Conversation", "Message", "reason_of"]

log = logging.getLogger(__name__)

#: A message's bytes, and whether it is text.
Message = tuple[bytes, bool]


def reason_of(error: Exception) -> Refused:
    """Why a conversation ends, for its client; an unexpected error is logged."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, BadInput):
        return Refused("not_pcm" if isinstance(error, NotSound) else "bad_audio", str(error))
    log.error("a conversation failed", exc_info=error)
    return Refused("internal", "this connection failed inside the daemon, its log says why: connect again")


class Conversation:
    """The peer of one socket. A protocol overrides :meth:`talk`, and :meth:`explain` if it has error messages beside
    the close frame."""

    def __init__(self, socket: Socket, streams: StreamConnections) -> None:
        self.socket, self.streams = socket, streams
        self._messages: deque[Message | Refused] = deque()
        self._changed = asyncio.Event()  # a message came, or the client reads again
        self._task = socket.loop.create_task(self._live())

    async def talk(self) -> None:
        """The whole conversation; raises :class:`Refused` or :class:`BadInput` to end it."""
        raise NotImplementedError

    def explain(self, why: Refused) -> list[bytes]:
        """Frames that give the client the reason before the connection closes."""
        return []

    async def next(self) -> Message:
        """The next message. Raises :class:`Refused` if the stream is over, or nothing came for ``idle_seconds``."""
        idle = self.streams.settings.idle_seconds
        try:
            async with asyncio.timeout(idle or None):
                while not (self._messages and self.socket.writable):
                    if not self._messages:
                        self.socket.resume()
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise Refused("idle_timeout", f"nothing came for {idle:g} s (idle_seconds)") from None
        found = self._messages.popleft()
        if isinstance(found, Refused):
            raise found
        return found

    def stop(self, why: Refused) -> None:
        """End the conversation once the current message is answered."""
        self._messages.appendleft(why)
        self._changed.set()

    # -- from the socket ---------------------------------------------------------------------------------------------

    def on_message(self, data: bytes, text: bool) -> None:
        self._messages.append((data, text))
        self.socket.pause()
        self._changed.set()

    def on_writable(self) -> None:
        self._changed.set()

    def on_stalled(self) -> None:
        seconds = self.streams.settings.send_seconds
        self._task.cancel()
        self._close(Refused("not_reading", f"nothing was read for {seconds:g} s (send_seconds)"))

    def on_closed(self, code: int) -> None:
        self._task.cancel()
        self.streams.metrics.closes.labels(str(code)).inc()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        try:
            await self.talk()
            self.socket.close(1000, "")
        except Exception as error:
            self._close(reason_of(error))

    def _close(self, why: Refused) -> None:
        log.info("client refused", extra={"code": why.reason, "detail": why.message})
        self.streams.metrics.bad_input.labels(why.reason).inc()
        self.socket.send(self.explain(why))
        self.socket.close(CLOSE_CODES.get(why.reason, 1011), why.message)
