"""The routes of the pages: documents and files need no token, numbers need one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamer.names import SEPARATOR, stream_id
from streamer.sensors.choice import AmbiguousError, NoSensorsError
from streamer.sensors.writes import BusyError
from streamer.serve.access.grant import grant_of
from streamer.serve.body import LONG, in_thread, problem
from streamer.serve.pages.charts import SCRIPT, Charts, find_charts
from streamer.serve.pages.engine import engine_page
from streamer.serve.pages.files import PageFile, page_files
from streamer.serve.pages.sensors import ORDERS, SensorPage, SensorWalks, past
from streamer.serve.readings.parsed import BodyError
from streamer.serve.shared_page import SharedPage

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors

__all__ = ["DOCUMENTS", "PageRoutes"]

#: Documents by their path; ``/`` is a document only for browsers.
DOCUMENTS = {"/": "captions.html", "/forecasts": "forecasts.html", "/engine": "engine.html"}
#: Most sensors, and most readings of one sensor, in one answer.
MOST_SENSORS, MOST_READINGS = 200, 2000
MOST_LETTERS = 200


class PageRoutes:
    """``index``: the text at ``/`` for clients that are not browsers. Lives on the event loop."""

    def __init__(self, index: str, sensors: Sensors, registry: CollectorRegistry) -> None:
        self._index, self._sensors = index, sensors
        self._files: dict[str, PageFile] = {}
        self._charts: asyncio.Task[Charts | None] | None = None
        self._sensor_list = SensorWalks()
        self._engine = SharedPage(partial(engine_page, registry))
        self.on = sensors.settings.pages
        if self.on:
            self._files = page_files()

    def routes(self) -> list[Route]:
        if not self.on:
            return [Route("/", self._plain)]
        return [
            Route("/", self._root),
            *(Route(path, partial(self._document, name)) for path, name in DOCUMENTS.items() if path != "/"),
            Route("/pages/charts.json", self._has_charts),
            Route("/pages/{file}", self._file),
            Route("/v1/engine", self._numbers),
            Route("/v1/sensor-list", self._list),
            Route("/v1/history/{stream:path}", self._history),
        ]

    # -- documents and files -------------------------------------------------------------------------------------------

    async def _plain(self, request: Request) -> Response:
        return PlainTextResponse(self._index)

    async def _root(self, request: Request) -> Response:
        """The page for a browser; curl, probes and scripts get the plain index."""
        if "text/html" in request.headers.get("accept", ""):
            return self._files[DOCUMENTS["/"]].answer(request)
        return PlainTextResponse(self._index, headers={"Vary": "Accept"})

    async def _document(self, name: str, request: Request) -> Response:
        return self._files[name].answer(request)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["file"]
        if name == SCRIPT and (charts := await self._find_charts()) is not None:
            return charts.file.answer(request)
        if (found := self._files.get(name)) is None or name.endswith(".html"):
            return problem(404, f"there is no file {name[:100]!r} of the pages")
        return found.answer(request)

    async def _has_charts(self, request: Request) -> Response:
        charts = await self._find_charts()
        script, styles = (None, []) if charts is None else (SCRIPT, charts.styles)
        return JSONResponse({"script": script, "styles": styles}, headers={"Cache-Control": "no-cache"})

    async def _find_charts(self) -> Charts | None:
        """Read the chart library once, at the first request. If it is not installed, or could not be read, the next
        request looks for it again."""
        looking = self._charts
        if looking is None or (looking.done() and (looking.exception() or looking.result() is None)):
            looking = self._charts = asyncio.create_task(asyncio.to_thread(find_charts))
        return await asyncio.shield(looking)

    # -- numbers -------------------------------------------------------------------------------------------------------

    async def _numbers(self, request: Request) -> Response:
        return Response(await self._engine.get(), media_type="application/json", headers={"Cache-Control": "no-store"})

    async def _list(self, request: Request) -> Response:
        """``?search=pump&order=anomaly&offset=0&limit=50``."""
        query = request.query_params
        try:
            order = query.get("order", "name")
            if order not in ORDERS:
                raise BodyError(400, f"order {order[:20]!r}: one of {', '.join(ORDERS)}")
            limit = _number(query.get("limit", "50"), "limit", MOST_SENSORS)
            offset = _number(query.get("offset", "0"), "offset", 10**9)
            page = SensorPage(query.get("search", "")[:MOST_LETTERS], order, offset, limit)
            fleets, owner = list(self._sensors.served().values()), grant_of(request.scope).owner
            found = await in_thread(lambda: self._sensor_list.page(fleets, owner, page), LONG)
        except BodyError as error:
            return problem(error.status, str(error))
        except NoSensorsError as error:
            return problem(404, str(error))
        except BusyError as error:
            return problem(503, str(error), error.retry_after)
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def _history(self, request: Request) -> Response:
        """``?limit=240&model=NAME``."""
        name = request.path_params["stream"]
        own = stream_id(grant_of(request.scope).owner, name.replace(SEPARATOR, "\0"))
        try:
            limit = _number(request.query_params.get("limit", "240"), "limit", MOST_READINGS)
            fleet = self._sensors.owner(own, request.query_params.get("model"))
            found = {} if fleet is None else await in_thread(lambda: past(fleet, own, limit), LONG)
        except BodyError as error:
            return problem(error.status, str(error))
        except NoSensorsError as error:
            return problem(404, str(error))
        except AmbiguousError as error:
            return problem(409, str(error))
        except BusyError as error:
            return problem(503, str(error), error.retry_after)
        if not found:
            return problem(404, f"no sensor {name[:200]!r} has sent a reading: GET /v1/forecast lists them")
        return JSONResponse(found, headers={"Cache-Control": "no-store"})


def _number(text: str, name: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > most:
        raise BodyError(400, f"{name} {text[:20]!r}: a whole number from 0 to {most}")
    return int(text)
