"""How many HTTP connections there are. Idle ones are bounded in time by keep-alive and handshake, in number here.

Whoever connects when there are ``max_http_connections`` takes the place of the connection that has been idle the
longest: a client must expect that of a kept connection at any time. Where none is idle it is answered 503 with
``Retry-After``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from streamer.metrics import Metrics

__all__ = ["Connections"]


class HttpConnection(Protocol):
    """As the register knows it."""

    def give_way(self) -> None:
        """Close: it is idle, and its place is needed."""


class Connections:
    """A register of those that are no WebSockets (yet). Lives on the event loop.

    A connection is idle until the headers of a request are complete, and again once that is answered.
    """

    def __init__(self, metrics: Metrics, most: int) -> None:
        self.most, self._metrics = most, metrics
        self._busy: set[HttpConnection] = set()
        self._idle: dict[HttpConnection, None] = {}  # the longest idle first
        metrics.http_connections.set_function(self.__len__)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle)

    def opened(self, connection: HttpConnection) -> bool:
        """False: there is no room for it; it is not registered."""
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
        """Or it has become a WebSocket."""
        self._busy.discard(connection)
        self._idle.pop(connection, None)
