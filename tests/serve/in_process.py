"""The daemon's HTTP application over a registry, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message

from streamer.sensors.host import Sensors
from streamer.serve.app import create_app, create_router
from streamer.serve.kserve.service import InferenceService
from streamer.serve.moving.routes import MovingRoutes
from streamer.serve.rows.routes import RowRoutes
from streamer.serve.stream.connections import StreamConnections
from streamer.streams.generators import Generators
from streamer.streams.registry import Registry

__all__ = ["application", "ask", "router"]


def application(registry: Registry) -> ASGIApp:
    """To be called on the event loop that answers."""
    return create_app(*_parts(registry))


def router(registry: Registry) -> Starlette:
    """The routes of that application."""
    streams, *others = _parts(registry)
    return create_router(RowRoutes(streams), streams, *others)


def _parts(registry: Registry) -> tuple[Any, ...]:
    settings, metrics = registry.settings, registry.metrics
    streams = StreamConnections(registry, settings, metrics, asyncio.get_running_loop())
    streams.closed = None
    kserve = InferenceService(registry, settings, streams.outbox.put, lambda: None)
    sensors, generators = Sensors(settings, metrics), Generators(settings, metrics)
    moving = MovingRoutes(registry, sensors, settings, lambda: {"models": registry.reload()}, kserve)
    return streams, metrics.registry, registry.models, registry.stuck, sensors, generators, kserve, moving


async def ask(
    app: ASGIApp, method: str, path: str, body: bytes = b"", query: str = "", headers: Mapping[str, str] | None = None
) -> Any:
    """Status and body of the answer."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    sent: list[Message] = []
    given = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return given.pop() if given else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
