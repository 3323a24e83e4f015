"""KServe v2 over HTTP, all but inference: ``/v2/...`` on the daemon's port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from streamer.serve.body import problem
from streamer.serve.kserve import describe
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_errors import error_response
from streamer.serve.kserve.service import InferenceService

__all__ = ["kserve_routes"]

Endpoint = Callable[[Request], Awaitable[Response]]


def kserve_routes(service: InferenceService) -> list[BaseRoute]:
    return _Endpoints(service).routes()


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Turn errors into a status and a message."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except KServeError as error:
            return error_response(error)

    return answer


class _Endpoints:
    def __init__(self, service: InferenceService) -> None:
        self._service = service

    def routes(self) -> list[BaseRoute]:
        table: list[tuple[str, Endpoint, str]] = [
            ("/health/live", self.live, "GET"),
            ("/health/ready", self.ready, "GET"),
            ("/models/stats", self.all_statistics, "GET"),
            ("/repository/index", self.index, "POST"),
        ]
        for model in ("/models/{model}", "/models/{model}/versions/{version}"):
            table += [
                (model, self.metadata, "GET"),
                (f"{model}/ready", self.model_ready, "GET"),
                (f"{model}/config", self.config, "GET"),
                (f"{model}/stats", self.statistics, "GET"),
            ]
        found = [Route(path, _guarded(endpoint), methods=[method]) for path, endpoint, method in table]
        unserved = Route("/{rest:path}", _guarded(self.unserved), methods=["GET", "POST"])
        return [Mount("/v2", routes=[*found, unserved]), Route("/v2", _guarded(self.server), methods=["GET"])]

    # -- what is served ----------------------------------------------------------------------------------------------

    async def server(self, request: Request) -> Response:
        return JSONResponse(describe.server())

    async def live(self, request: Request) -> Response:
        return Response()

    async def ready(self, request: Request) -> Response:
        why = self._service.ready()
        return problem(503, why, 1.0) if why else Response()

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(describe.metadata(self._service.manifest(*_named(request))))

    async def model_ready(self, request: Request) -> Response:
        self._service.manifest(*_named(request))
        return await self.ready(request)

    async def config(self, request: Request) -> Response:
        return JSONResponse(self._service.config(*_named(request)))

    async def statistics(self, request: Request) -> Response:
        return JSONResponse(self._service.statistics(*_named(request)))

    async def all_statistics(self, request: Request) -> Response:
        return JSONResponse(self._service.statistics())

    async def index(self, request: Request) -> Response:
        return JSONResponse(self._service.index())

    async def unserved(self, request: Request) -> Response:
        path = request.url.path
        raise KServeError(501, f"{path[:200]} is not served here: the extensions are {', '.join(describe.EXTENSIONS)}")


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")
