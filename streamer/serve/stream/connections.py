"""What the connections of streams share, in every protocol."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from streamer.serve.outbox import Outbox

if TYPE_CHECKING:
    from prometheus_client import Counter

    from streamer.metrics import Metrics
    from streamer.serve.websocket import Socket
    from streamer.settings import Settings
    from streamer.streams.registry import Registry

__all__ = ["OpenConnection", "StreamConnections"]


class OpenConnection(Protocol):
    """The peer of an open socket."""

    @property
    def socket(self) -> Socket: ...


class StreamConnections:
    """What the connections of every protocol share: the registry, the way to the event loop, and whether new streams
    are welcome."""

    def __init__(self, registry: Registry, settings: Settings, metrics: Metrics, loop: asyncio.AbstractEventLoop):
        self.registry = registry
        self.settings = settings
        self.metrics = metrics
        self.outbox = Outbox(loop)
        self.connections: set[OpenConnection] = set()  # those of ``/v1/stream``
        #: Why streams are refused, for ``/readyz`` and the handshake; ``None`` when they are welcome.
        self.closed: tuple[str, str] | None = ("starting", "the models are being loaded: try again in a moment")
        self._sent: dict[str, Counter] = {}  # children by event type: looking up a label costs more than counting
        self.received = metrics.received_bytes
        metrics.connections.set_function(lambda: len(self.connections))

    def refusal(self) -> str | None:
        """Why a new connection is refused now, which is counted; ``None``: it is not."""
        if self.closed is not None:
            self.metrics.refusals.labels(self.closed[0]).inc()
            return f"{self.closed[0]}: {self.closed[1]}\n"
        if len(self.connections) >= (most := self.settings.max_connections):
            self.metrics.refusals.labels("connections").inc()
            return f"all {most} connections are taken (max_connections): try again later\n"
        return None

    def sent(self, kind: str) -> Counter:
        counter = self._sent.get(kind)
        if counter is None:
            counter = self._sent[kind] = self.metrics.sent_events.labels(kind)
        return counter

    def drain(self) -> None:
        """Take no new streams and no more audio. Clients send again what lies in the kernel: it was not
        acknowledged."""
        self.closed = ("draining", "the daemon is going down: try again in a moment")
        for stream in self.connections:
            stream.socket.pause()

    def close(self) -> None:
        for stream in list(self.connections):
            stream.socket.close(1012, "the daemon restarts: resume with the same stream id")
