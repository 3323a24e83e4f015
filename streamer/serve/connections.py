"""Bounds the number of HTTP connections. Keep-alive and handshake timeouts bound the time of idle ones.

When there are ``max_http_connections``, a new connection takes the place of the one that has been idle the longest: a
client must expect at any time that an idle connection closes. If none is idle, the new one is answered 503 with
``Retry-After``.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from streamer.metrics import Metrics

__all__ = ["Connections", "unavailable"]


def unavailable(text: str, seconds: float) -> bytes:
    """The bytes of an answer 503 to a connection that is closed then. ``seconds``: when to come back."""
    body = text.encode()
    return (
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: %d\r\nconnection: close\r\n"
        b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n\r\n%b" % (ceil(seconds), len(body), body)
    )


class HttpConnection(Protocol):
    """A connection, as the register sees it."""

    def give_way(self) -> None:
        """Close the idle connection, because its place is needed."""


class Connections:
    """The register of connections that are not WebSockets (yet). Lives on the event loop.

    A connection is idle until the headers of a request are complete, and again once the request is answered.
    """

    def __init__(self, metrics: Metrics, most: int) -> None:
        self.most, self._metrics = most, metrics
        self._busy: set[HttpConnection] = set()
        self._idle: dict[HttpConnection, None] = {}  # the longest idle first
        metrics.http_connections.set_function(self.__len__)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def opened(self, connection: HttpConnection) -> bool:
        """Register a connection. False: there is no room, and it is not registered."""
        if len(self) >= self.most:
            longest = next(iter(self._idle), None)
            if longest is None:
                self._metrics.refused_requests.labels("connections").inc()
                return False
            self.closed(longest)
            self._metrics.closed_http_connections.inc()
            longest.give_way()
        self._idle[connection] = None
        return True

    def is_busy(self, connection: HttpConnection) -> None:
        if connection in self._idle:
            del self._idle[connection]
            self._busy.add(connection)

    def is_idle(self, connection: HttpConnection) -> None:
        if connection in self._busy:
            self._busy.remove(connection)
            self._idle[connection] = None

    def closed(self, connection: HttpConnection) -> None:
        """Remove a connection that was closed or has become a WebSocket."""
        self._busy.discard(connection)
        self._idle.pop(connection, None)
