"""What a WebSocket's bytes are for: the peer of :class:`streamer.serve.websocket.Socket`."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Responder"]


class Responder(Protocol):
    """The peer that handles a connection's messages. All calls come from the event loop; they must not block."""

    def on_message(self, data: bytes, text: bool) -> None: ...
    def on_writable(self) -> None: ...
    def on_stalled(self) -> None: ...
    def on_closed(self, code: int) -> None: ...
