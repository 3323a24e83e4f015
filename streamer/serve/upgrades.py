"""What a client says when it asks for a WebSocket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from streamer.serve.access.gate import SUBPROTOCOL, Access
from streamer.serve.access.grant import Denied, Grant

__all__ = ["choose_subprotocol", "factory_of", "grant_of_upgrade", "headers_of_upgrade", "path_of"]

T = TypeVar("T")

REALTIME = Subprotocol("realtime")


def headers_of_upgrade(request: Request) -> dict[str, str]:
    """The headers by lower-case name, as in :func:`streamer.serve.headers.headers_of`."""
    return {name.lower(): ", ".join(request.headers.get_all(name)) for name in request.headers}


def grant_of_upgrade(
    access: Access, request: Request, headers: dict[str, str], address: str, route: str | None
) -> Grant:
    """What the client may do. ``route``: the path whose scope is needed, if not that of the request. Raises
    :class:`Denied`."""
    offered = [text.strip() for text in headers.get("sec-websocket-protocol", "").split(",")]
    return access.admit("GET", route or path_of(request), headers, address, offered)


def factory_of(admit: Callable[[str], T | tuple[int, str]], request: Request) -> T:
    """What ``admit`` gives for the request's path. Raises :class:`Denied` if that is a status and a text."""
    admitted = admit(path_of(request))
    if isinstance(admitted, tuple):
        raise Denied(admitted[0], "", admitted[1], 1.0 if admitted[0] == 503 else None)
    return admitted


def path_of(request: Request) -> str:
    return request.path.partition("?")[0]


def choose_subprotocol(codec: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """One of our subprotocols if the client offers it: browsers close a connection whose offer is not answered."""
    return next((known for known in (Subprotocol(SUBPROTOCOL), REALTIME) if known in offered), None)
