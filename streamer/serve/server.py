"""The listening socket, and the HTTP server on it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

__all__ = ["UvicornServer", "bind", "write_port"]


def bind(host: str, port: int) -> socket.socket:
    """Bind the listening socket before any slow work, so that a taken port is known at once."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


class UvicornServer(uvicorn.Server):
    """uvicorn without its signal handling: it would close the sockets before the streams are drained."""

    def __init__(self, config: uvicorn.Config, handshake_seconds: float):
        super().__init__(config)
        self.listening = asyncio.Event()
        self._handshake_seconds = handshake_seconds

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start with our own timeout of the TLS handshake: uvicorn's is a minute, in which a connection is not
        counted."""
        config, self.servers = self.config, []
        await self.lifespan.startup()
        protocol: Callable[..., asyncio.Protocol] = config.http_protocol_class
        state = {"server_state": self.server_state, "app_state": self.lifespan.state}
        patience = None if config.ssl is None else self._handshake_seconds
        for listener in sockets or ():
            server = await asyncio.get_running_loop().create_server(
                functools.partial(protocol, config=config, **state),
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=patience,
            )
            self.servers.append(server)
        self.started = True
        self.listening.set()


def write_port(path: Path, port: int) -> None:
    """Write the file whole or not at all: another process may be waiting for it."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(f"{port}\n")
    partial.replace(path)
