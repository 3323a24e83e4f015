"""The optional gRPC port, if it is configured and its libraries are installed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from streamer.serve.ports import AddressTakenError, MissingExtraError

if TYPE_CHECKING:
    from streamer.serve.access.gate import Access
    from streamer.serve.access.tls import ServerTls
    from streamer.serve.bounds import RequestMemory
    from streamer.serve.kserve.grpc_server import GrpcServer
    from streamer.serve.kserve.service import InferenceService
    from streamer.settings import Settings

__all__ = ["Grpc"]

log = logging.getLogger(__name__)


class Grpc:
    """The gRPC server; does nothing if ``kserve_grpc_port`` is 0."""

    def __init__(
        self,
        service: InferenceService,
        settings: Settings,
        memory: RequestMemory,
        access: Access,
        tls: ServerTls | None = None,
    ) -> None:
        self._service, self._settings, self._memory = service, settings, memory
        self._access, self._tls = access, tls
        self._server: GrpcServer | None = None

    async def start(self) -> None:
        """Start the server. Raises :class:`MissingExtraError` or :class:`AddressTakenError`."""
        host, port = self._settings.host, self._settings.kserve_grpc_port
        if not port:
            return
        try:
            from streamer.serve.kserve.grpc_server import GrpcServer
        except ImportError as error:
            text = f"kserve_grpc_port is {port}, and {error.name} is missing: pip install 'streamer[kserve]'"
            raise MissingExtraError(text) from error
        server = GrpcServer(self._service, host, port, self._memory, self._access, self._tls)
        try:
            await server.start()
        except RuntimeError as error:
            text = f"can't listen on {host}:{port} for gRPC: choose another kserve_grpc_port"
            raise AddressTakenError(text) from error
        self._server = server
        log.info("listening for gRPC", extra={"host": host, "port": server.port})

    async def stop(self) -> None:
        """Stop the server; running calls have ``linger_seconds`` to end."""
        if self._server is not None:
            await self._server.stop(self._settings.linger_seconds)
