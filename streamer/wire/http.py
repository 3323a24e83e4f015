"""uvicorn's HTTP connection with the two bounds it lacks: time and bytes until a request is complete.

Without them a client that connects and says nothing, or never ends its headers, keeps a file descriptor or fills the
memory for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Http"]


class Http(HttpToolsProtocol):
    def __init__(self, *, handshake_seconds: float, max_request_bytes: int, **uvicorn: Any):
        super().__init__(**uvicorn)
        self._handshake_seconds, self._max_request_bytes = handshake_seconds, max_request_bytes
        self._overdue: asyncio.TimerHandle | None = None
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._max_request_bytes:
            self.transport.abort()
            return
        super().data_received(data)

    def on_message_begin(self) -> None:
        self._hurry()
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._in_time()  # from here on uvicorn's keep-alive timer watches
        self._received = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._in_time()
        super().handle_websocket_upgrade()

    def _hurry(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(self._handshake_seconds, self.transport.abort)

    def _in_time(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
