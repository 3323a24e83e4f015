"""The HTTP routes for health, readiness, metrics and served models. They are cheap, and safe to ask at any time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from streamer.sensors.owners import VIEWER
from streamer.serve.access.grant import grant_of
from streamer.serve.body import problem
from streamer.serve.generate import GenerateRoute
from streamer.serve.kserve.routes import kserve_routes
from streamer.serve.moving.routes import MovingRoutes
from streamer.serve.openai.routes import OpenAIRoutes, model_list
from streamer.serve.pages.routes import PageRoutes
from streamer.serve.parse_threads import parse_thread
from streamer.serve.readings.routes import routes
from streamer.serve.rows.routes import RowRoutes
from streamer.serve.shared_page import SharedPage

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors
    from streamer.serve.kserve.service import InferenceService
    from streamer.serve.stream.connections import StreamConnections
    from streamer.streams.generators import Generators

__all__ = ["create_app", "create_router"]

#: Paths of WebSockets, which never come here; a plain request does.
SOCKETS = ("/v1/stream", "/v1/sensors", "/v1/realtime")
INDEX = """streamer: stateful streaming inference

  /v1/stream   WebSocket: one connection, one stream
  /v1/streams/KEY  POST: rows in, outputs out; GET where it stands, DELETE it
  /v1/models   what is served
  /v1/generate POST: what a generator writes, as it writes it

  /v1/audio/transcriptions  POST: a recording in, its text out (OpenAI)
  /v1/realtime WebSocket: the same while it is spoken

  /v2/...      KServe v2: /v2/models/NAME/infer

  /v1/readings           POST: CSV or NDJSON; ?forecast=1 answers with forecasts
  /api/v2/write, /write  POST: Influx line protocol
  /api/v1/write          POST: Prometheus remote write 1.0 and 2.0
  /v1/metrics            POST: OTLP
  /v1/sensors            WebSocket: readings in, forecasts out
  /v1/forecast           sensors by name; /v1/forecast/NAME one of them

  /v1/sessions           what is here, for administrators; /v1/drain, /v1/reload

  /            in a browser: live captions; /forecasts, /engine

  /healthz     200 while the process lives
  /readyz      200 while new streams are welcome, else 503 and why
  /metrics     Prometheus (OpenMetrics on request)

  /openapi.json, /asyncapi.json  all of this for programs: HTTP, WebSockets
"""


def create_app(streams: StreamConnections, *others: Any) -> ASGIApp:
    """The router of :func:`create_router`, with the routes for rows in front of it."""
    rows = RowRoutes(streams)
    return rows.before(create_router(rows, streams, *others))


def create_router(
    rows: RowRoutes,
    streams: StreamConnections,
    registry: CollectorRegistry,
    models: Callable[[], list[dict[str, Any]]],
    health: Callable[[], str | None],
    sensors: Sensors,
    generators: Generators,
    kserve: InferenceService,
    moving: MovingRoutes,
    disk: Callable[[], str | None] = lambda: None,
) -> Starlette:
    """All routes; :mod:`streamer.serve.access.rules` has the scope of each.

    ``health()``: what is wrong with the engine; ``disk()``: why nothing can be saved; ``None``: nothing is wrong."""

    async def healthz(request: Request) -> Response:
        trouble = health()
        return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        trouble = ": ".join(streams.closed) if streams.closed else health() or streams.registry.gone()
        state = "ready"
        if trouble is None and (unsaved := disk()) is not None:
            if streams.settings.unsaved_streams:
                state = f"ready, but nothing is saved: {unsaved}"
            else:
                trouble = f"nothing can be saved: {unsaved}"
        if trouble:
            return PlainTextResponse(f"{trouble}\n", 503, {"Retry-After": "1"})
        return PlainTextResponse(f"{state}\n{sensors.waiting()}")

    pages: dict[tuple[str, str | None], SharedPage] = {}  # by content type and viewer; there are few of each

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        grant = grant_of(request.scope)
        viewer = None if grant.may("admin") else grant.owner
        if (page := pages.get((content_type, viewer))) is None:
            page = pages[content_type, viewer] = SharedPage(partial(_page, encoder, registry, viewer))
        return Response(await page.get(), headers={"Content-Type": content_type})

    async def served(request: Request) -> Response:
        known = models()
        return JSONResponse({"models": known, **(model_list(known) if streams.settings.openai else {})})

    documents: dict[str, bytes] = {}  # made once, at the first request

    async def document(request: Request) -> Response:
        name = request.url.path
        if name not in documents:
            documents[name] = await parse_thread(lambda: _document(name, app.routes))
        return Response(documents[name], media_type="application/json")

    app = Starlette(
        routes=[
            *kserve_routes(kserve),
            *PageRoutes(INDEX, sensors, registry).routes(),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/openapi.json", document),
            Route("/asyncapi.json", document),
            Route("/v1/models", served),
            *(OpenAIRoutes(streams).routes() if streams.settings.openai else []),
            *rows.routes(),
            Route("/v1/generate", GenerateRoute(generators, lambda: streams.closed).answer, methods=["POST"]),
            *routes(sensors),
            *moving.routes(),
        ],
        exception_handlers={404: _not_here, 405: _not_here},
    )
    return app


async def _not_here(request: Request, error: Exception) -> Response:
    """The answer to a request that no route takes, in the same form as every other error."""
    assert isinstance(error, HTTPException)
    path = request.url.path[:200]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return problem(405, f"{request.method} is not for {path!r}: {allowed} is", headers=dict(error.headers or {}))
    if error.status_code == 404 and request.url.path in SOCKETS:
        text = f"{path!r} is a WebSocket: connect to ws://HOST:PORT{path}; GET /asyncapi.json says what is sent there"
        return problem(426, text, headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    return problem(404, f"there is nothing at {path!r}: GET / says what is where")


def _document(path: str, routes: Sequence[BaseRoute]) -> bytes:
    from streamer.serve.documents.asyncapi import asyncapi
    from streamer.serve.documents.openapi import openapi

    return json.dumps(openapi(routes) if path == "/openapi.json" else asyncapi(), ensure_ascii=False).encode()


def _page(encoder: Callable[[CollectorRegistry], bytes], registry: CollectorRegistry, viewer: str | None) -> bytes:
    """Render the metrics page. It asks every stream, so it runs in a thread."""
    VIEWER.set(viewer)
    return encoder(registry)
