"""A WebSocket that knows whether anything came lately: a peer that is gone without a word says nothing for ever."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

__all__ = ["Connection", "dial", "without_secrets"]

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


def without_secrets(url: str) -> str:
    """As it may be shown: no user, no password."""
    return re.sub(r"//[^/]*@", "//", url)


def dial(url: str, token: str | None = None, ca: str | Path | None = None) -> connect:
    """``token``: of the daemon, else $STREAMER_TOKEN. ``ca``: certificates to trust (PEM), else $STREAMER_CA, else the
    system's. Raises OSError where they can't be read.

    No ping timeout of ours: a daemon that holds the socket for back-pressure doesn't read pongs either."""
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
