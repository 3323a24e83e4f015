"""A WebSocket that knows whether anything came lately: a peer that is gone without a word says nothing for ever."""

from __future__ import annotations

import asyncio

from websockets.asyncio.client import ClientConnection, connect

from streamer.client.errors import MOVED, StreamError

__all__ = ["Connection", "dial", "followed", "socket_url"]

#: A connection is given up after so many silent intervals in a row. One would be too few: a process that was stopped
#: for a while finds its clock moved on, and what came meanwhile still unread.
INTERVALS = 3


class Connection(ClientConnection):
    """Pings count as well: the daemon sends one every ``ping_seconds``, also while it reads nothing."""

    heard = True

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    async def watch(self, seconds: float) -> None:
        """Return once nothing came for ``seconds``; of 0 never."""
        silent = 0
        while silent < INTERVALS:
            self.heard = False
            await asyncio.sleep(seconds / INTERVALS if seconds else 3600)
            silent = silent + 1 if seconds and not self.heard else 0


def socket_url(url: str) -> str:
    """Of a daemon's streams; ``url`` with or without the path."""
    url = url.replace("http://", "ws://", 1).replace("https://", "wss://", 1).rstrip("/")
    return url if url.endswith("/v1/stream") else url + "/v1/stream"


def followed(url: str, to: str) -> str:
    """The socket that a stream has moved ``to``. Raises :class:`StreamError` where that would give up encryption."""
    to = socket_url(to)
    if url.startswith("wss:") and not to.startswith("wss:"):
        raise StreamError(MOVED, f"the stream has moved to {to}, which is not encrypted: connect there by hand")
    return to


def dial(url: str) -> connect:
    """No ping timeout of ours: a daemon that holds the socket for back-pressure doesn't read pongs either."""
    return connect(
        url,
        create_connection=Connection,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=2,
        max_size=2**24,
    )
