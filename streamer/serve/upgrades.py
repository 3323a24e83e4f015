"""What a client says when it asks for a WebSocket."""

from __future__ import annotations

from collections.abc import Sequence

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamer.serve.access.gate import SUBPROTOCOL

__all__ = ["choose_subprotocol", "headers_of_upgrade", "offered_subprotocols"]

REALTIME = Subprotocol("realtime")


def headers_of_upgrade(request: Request) -> dict[str, str]:
    """The headers by lower-case name, as in :func:`streamer.serve.headers.headers_of`."""
    return {name.lower(): ", ".join(request.headers.get_all(name)) for name in request.headers}


def offered_subprotocols(headers: dict[str, str]) -> list[str]:
    return [text.strip() for text in headers.get("sec-websocket-protocol", "").split(",")]


def choose_subprotocol(codec: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """One of our subprotocols if the client offers it: browsers close a connection whose offer is not answered."""
    return next((known for known in (Subprotocol(SUBPROTOCOL), REALTIME) if known in offered), None)
