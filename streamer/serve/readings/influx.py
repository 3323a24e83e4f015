"""InfluxDB's endpoints that clients call before they write: ping, and creating a database, which is not needed here."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamer.serve.body import read_body
from streamer.serve.readings.parsed import BodyError

__all__ = ["routes"]

#: Clients choose their write endpoint by the major version.
VERSION = "1.8.10-streamer"
MOST = 2**16  # bytes of a query
HEADERS = {"X-Influxdb-Version": VERSION, "X-Influxdb-Build": "OSS"}
CREATE = re.compile(r"(create|drop|alter)\s+(database|retention\s+policy)\b.*", re.IGNORECASE | re.DOTALL)
SHOW = re.compile(r"show\s+(databases|measurements|retention\s+policies\b.*)", re.IGNORECASE | re.DOTALL)


def routes(trouble: Callable[[], str]) -> list[Route]:
    """The routes. ``trouble``: returns why readings are not accepted now, empty if they are."""

    async def health(request: Request) -> Response:
        reason = trouble()
        about = {"message": reason or "ready for queries and writes", "status": "fail" if reason else "pass"}
        answer = {"name": "influxdb", **about, "checks": [], "version": VERSION}
        return JSONResponse(answer, 503 if reason else 200, headers=HEADERS)

    return [
        Route("/ping", ping, methods=["GET", "HEAD", "POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/query", query, methods=["GET", "POST"]),
    ]


async def ping(request: Request) -> Response:
    if request.query_params.get("verbose", "false") not in ("false", "0", ""):
        return JSONResponse({"version": VERSION}, headers=HEADERS)
    return Response(status_code=204, headers=HEADERS)


async def query(request: Request) -> Response:
    """Answers ``CREATE DATABASE`` and ``SHOW DATABASES``, which writers send when they start; nothing else."""
    asked = request.query_params.get("q", "")
    if not asked and request.method == "POST":
        try:
            asked = _form((await read_body(request, MOST)).decode(errors="replace"))
        except BodyError as error:
            return JSONResponse({"error": str(error)}, error.status, headers=HEADERS)
    results = []
    for number, statement in enumerate(part.strip() for part in asked.split(";") if part.strip()):
        result: dict[str, object] = {"statement_id": number}
        if shown := SHOW.fullmatch(statement):
            what = shown[1].lower()
            if what == "databases":
                result["series"] = [{"name": "databases", "columns": ["name"], "values": [["streamer"]]}]
        elif not CREATE.fullmatch(statement):
            why = f"{statement[:60]!r}: nothing is stored to be queried; GET /v1/forecast has the forecasts"
            return JSONResponse({"error": why}, 400, headers=HEADERS)
        results.append(result)
    if not results:
        return JSONResponse({"error": 'missing required parameter "q"'}, 400, headers=HEADERS)
    return JSONResponse({"results": results}, headers=HEADERS)


def _form(body: str) -> str:
    return parse_qs(body).get("q", [""])[0]
