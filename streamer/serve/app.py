"""The HTTP side: health, readiness, metrics and what is served. Small, cheap and safe to ask at any time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from streamer.serve.generate import GenerateRoute
from streamer.serve.kserve.routes import kserve_routes
from streamer.serve.openai.routes import OpenAIRoutes, model_list
from streamer.serve.readings.routes import routes
from streamer.serve.rows.routes import RowRoutes

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors
    from streamer.serve.kserve.service import InferenceService
    from streamer.serve.stream.connection import StreamConnections
    from streamer.streams.generators import Generators

__all__ = ["create_app"]

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

  /healthz     200 while the process lives
  /readyz      200 while new streams are welcome, else 503 and why
  /metrics     Prometheus (OpenMetrics on request)
"""


def create_app(
    streams: StreamConnections,
    registry: CollectorRegistry,
    models: Callable[[], list[dict[str, Any]]],
    health: Callable[[], str | None],
    sensors: Sensors,
    generators: Generators,
    kserve: InferenceService,
) -> ASGIApp:
    """``health()`` says what is wrong with the engine, or ``None``."""

    async def index(request: Request) -> Response:
        return PlainTextResponse(INDEX)

    async def healthz(request: Request) -> Response:
        trouble = health()
        return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        trouble = ": ".join(streams.closed) if streams.closed else health()
        return PlainTextResponse(f"{trouble}\n", 503, {"Retry-After": "1"}) if trouble else PlainTextResponse("ready\n")

    rendering = asyncio.Lock()  # one at a time: pages are never refused, and threads are for others too

    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        async with rendering:  # every stream is asked: not on the event loop
            page = await asyncio.to_thread(encoder, registry)
        return Response(page, headers={"Content-Type": content_type})

    async def served(request: Request) -> Response:
        known = models()
        return JSONResponse({"models": known, **(model_list(known) if streams.settings.openai else {})})

    rows = RowRoutes(streams)
    app = Starlette(
        routes=[
            *kserve_routes(kserve),
            Route("/", index),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/v1/models", served),
            *(OpenAIRoutes(streams).routes() if streams.settings.openai else []),
            *rows.routes(),
            Route("/v1/generate", GenerateRoute(generators, lambda: streams.closed).answer, methods=["POST"]),
            *routes(sensors),
        ]
    )
    return rows.before(app)
