"""A WebSocket with a receive timeout, which detects a peer that vanished without closing the connection."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection, connect

__all__ = ["Connection", "dial"]

#: A connection is closed after so many silent intervals in a row. One would be too few: a process that was stopped for
#: a while finds the clock advanced before it has read what arrived.
INTERVALS = 3


class Connection(ClientConnection):
    """Records when data arrived. Pings count: the daemon sends one every ``ping_seconds``, even while it does not
    read."""

    heard = True

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    async def watch(self, seconds: float) -> None:
        """Return once nothing arrived for ``seconds``; with 0 never."""
        silent = 0
        while silent < INTERVALS:
            self.heard = False
            await asyncio.sleep(seconds / INTERVALS if seconds else 3600)
            silent = silent + 1 if seconds and not self.heard else 0


def dial(url: str) -> connect:
    """Connect, without a ping timeout: a daemon that pauses reading for back-pressure reads no pings either."""
    return connect(
        url,
        create_connection=Connection,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=2,
        max_size=2**24,
    )
