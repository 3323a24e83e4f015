"""A WebSocket with a receive timeout, which detects a peer that vanished without closing the connection."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidMessage

from streamer.client.errors import MOVED, StreamError

__all__ = ["Connection", "dial", "followed", "socket_url", "tls_advice", "tls_trouble", "without_secrets"]

#: A connection is closed after this many silent intervals in a row. One would be too few: a process that was stopped
#: for a while finds the clock advanced before it has read the data that arrived meanwhile.
INTERVALS = 3
#: OpenSSL's reasons when the other side does not speak TLS.
NO_TLS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


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


def tls_trouble(error: BaseException, url: str) -> str | None:
    """What to do about a failed handshake of TLS, which fails again when it is repeated; ``None`` for other errors."""
    shown = without_secrets(url)
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message or str(error)
        return f"the certificate of {shown} is not trusted ({reason}): name its authority's with --ca or STREAMER_CA"
    if isinstance(error, ssl.SSLError) and error.reason in NO_TLS:
        scheme = "http" if url.startswith("http") else "ws"
        return f"{shown} answers without TLS: use {scheme}:// instead of {scheme}s://, or give it a certificate"
    return None


def tls_advice(error: BaseException, url: str) -> str:
    """Words to add where an address without TLS gave no HTTP: a daemon with TLS answers like that, and so does one that
    goes down at that moment."""
    return "; if the daemon has TLS, use wss://" if isinstance(error, InvalidMessage) and url.startswith("ws:") else ""


def dial(url: str, token: str | None = None, ca: str | Path | None = None) -> connect:
    """Connect. ``token``: the access token, else $STREAMER_TOKEN. ``ca``: certificates to trust (PEM), else
    $STREAMER_CA, else the system's. Raises :class:`StreamError` if the certificates can't be read.

    There is no ping timeout: a daemon that pauses reading for back-pressure reads no pings either."""
    token = token or os.environ.get("STREAMER_TOKEN")
    ca = ca or os.environ.get("STREAMER_CA")
    context = None
    if url.startswith("wss:"):
        try:
            context = ssl.create_default_context(cafile=ca)
        except OSError as error:
            reason = error.strerror or str(error)
            text = f"the certificates in {ca} can't be used ({reason}): name a PEM file"
            raise StreamError("refused", text) from error
    return connect(
        url,
        additional_headers={"Authorization": f"Bearer {token}"} if token else None,
        ssl=context,
        create_connection=Connection,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=2,
        max_size=2**24,
    )
