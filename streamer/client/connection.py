"""A WebSocket with a receive timeout, which detects a peer that vanished without closing the connection."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

from streamer.client.errors import MOVED, StreamError

__all__ = ["Connection", "dial", "followed", "socket_url", "without_secrets"]

#: A connection is closed after this many silent intervals in a row. One would be too few: a process that was stopped
#: for a while finds the clock advanced before it has read the data that arrived meanwhile.
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


def without_secrets(url: str) -> str:
    """``url`` without user and password, for messages."""
    return re.sub(r"//[^/]*@", "//", url)


def socket_url(url: str) -> str:
    """The WebSocket URL of a daemon's streams. ``url``: the daemon's, http or ws, with or without the path."""
    url = url.replace("http://", "ws://", 1).replace("https://", "wss://", 1).rstrip("/")
    return url if url.endswith("/v1/stream") else url + "/v1/stream"


def followed(url: str, to: str) -> str:
    """The WebSocket URL of the daemon ``to`` which a stream at ``url`` has moved. Raises :class:`StreamError` if the
    connection would lose encryption."""
    to = socket_url(to)
    if url.startswith("wss:") and not to.startswith("wss:"):
        shown = without_secrets(to)
        raise StreamError(MOVED, f"the stream has moved to {shown}, which is not encrypted: connect there by hand")
    return to


def dial(url: str, token: str | None = None, ca: str | Path | None = None) -> connect:
    """Connect. ``token``: the access token, else $STREAMER_TOKEN. ``ca``: certificates to trust (PEM), else
    $STREAMER_CA, else the system's. Raises OSError if the certificates can't be read.

    There is no ping timeout: a daemon that pauses reading for back-pressure reads no pings either."""
    token = token or os.environ.get("STREAMER_TOKEN")
    ca = ca or os.environ.get("STREAMER_CA")
    secure = url.startswith("wss:")
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        ssl=ssl.create_default_context(cafile=ca) if secure and ca else None,
        create_connection=Connection,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=2,
        max_size=2**24,
    )
