"""TCP ports beside the daemon's own, for protocols that need a port each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.metrics import Metrics
    from streamer.settings import Settings

__all__ = ["AddressTakenError", "MissingExtraError", "ProtocolPort"]

log = logging.getLogger(__name__)


class AddressTakenError(OSError):
    """The message names the address, and says what to do."""


class MissingExtraError(ImportError):
    """The message names the missing package, and says how to install it."""


class ProtocolPort:
    """Does nothing if ``port`` is 0. ``protocol``: the protocol's name; its setting is ``<protocol>_port``."""

    def __init__(self, settings: Settings, metrics: Metrics, protocol: str, port: int) -> None:
        self._settings, self._metrics, self._protocol, self._port = settings, metrics, protocol, port
        self._server: asyncio.Server | None = None

    async def start(self, make: Callable[[], asyncio.BaseProtocol], count: Callable[[], int]) -> None:
        """Listen. ``make``: makes the protocol of a connection; ``count``: the number of connections, at most
        ``max_protocol_connections``. Raises :class:`AddressTakenError`."""
        if not self._port:
            return
        host, loop = self._settings.host, asyncio.get_running_loop()

        def accepted() -> asyncio.BaseProtocol:
            if count() < self._settings.max_protocol_connections:
                return make()
            self._metrics.refusals.labels("connections").inc()
            return _Refusing()

        try:
            self._server = await loop.create_server(accepted, host, self._port)
        except OSError as error:
            text = f"can't listen on {host}:{self._port}: choose another {self._protocol}_port"
            raise AddressTakenError(text) from error
        self._metrics.protocol_connections.labels(self._protocol).set_function(count)
        log.info("listening", extra={"host": host, "port": self._port, "protocol": self._protocol})

    def stop_listening(self) -> None:
        """Take no new connections; open ones stay."""
        if self._server is not None:
            self._server.close()


class _Refusing(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
