"""KServe v2 over HTTP: ``/v2/...`` on the daemon's port."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from streamer.serve.body import SHORT, problem, read_body, unzip
from streamer.serve.kserve import describe
from streamer.serve.kserve.caller import SECRET_HEADER, Caller
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_codec import LENGTH_HEADER, encode, parse
from streamer.serve.kserve.messages import InferRequest
from streamer.serve.kserve.service import InferenceService
from streamer.serve.kserve.shapes import RequestReader
from streamer.serve.kserve.tensors import parse_bytes
from streamer.serve.readings.parsed import BodyError

__all__ = ["INFER_PATH", "kserve_routes"]

#: Paths whose requests may have long bodies.
INFER_PATH = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")

Endpoint = Callable[[Request], Awaitable[Response]]


def kserve_routes(service: InferenceService) -> list[BaseRoute]:
    return _Endpoints(service).routes()


def _guarded(endpoint: Endpoint) -> Endpoint:
    """What can't be answered gets its status and a sentence."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except KServeError as error:
            return problem(error.status, error.message, error.retry_after)
        except BodyError as error:
            return problem(error.status, str(error), 1.0 if error.status == 503 else None)

    return answer


class _Endpoints:
    def __init__(self, service: InferenceService) -> None:
        self._service, self._settings = service, service.settings

    def routes(self) -> list[BaseRoute]:
        models = ("/models/{model}", "/models/{model}/versions/{version}")
        table: list[tuple[str, Endpoint, str]] = [
            *((f"{model}/infer", self.infer, "POST") for model in models),  # first: it is asked all the time
            ("/health/live", self.live, "GET"),
            ("/health/ready", self.ready, "GET"),
            ("/models/stats", self.all_statistics, "GET"),
            ("/repository/index", self.index, "POST"),
        ]
        for model in models:
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
        return JSONResponse(await self._service.statistics(*_named(request)))

    async def all_statistics(self, request: Request) -> Response:
        return JSONResponse(await self._service.statistics())

    async def index(self, request: Request) -> Response:
        return JSONResponse(self._service.index())

    async def unserved(self, request: Request) -> Response:
        path = request.url.path
        raise KServeError(501, f"{path[:200]} is not served here: the extensions are {', '.join(describe.EXTENSIONS)}")

    # -- inference ---------------------------------------------------------------------------------------------------

    async def infer(self, request: Request) -> Response:
        model, version = _named(request)
        length = _length(request)
        encoding = request.headers.get("content-encoding", "")
        body = await read_body(request, self._settings.max_body_bytes)
        # what is slow is JSON and unpacking; the event loop has other streams to serve
        slow = bool(encoding) or (len(body) if length is None else length) > SHORT
        read = partial(self._read, body, encoding, length, model, version)
        wanted: InferRequest = await asyncio.to_thread(read) if slow else read()
        answer = await self._service.infer(model, version, wanted, caller_of(request))
        text = not wanted.binary and not all(output.binary for output in wanted.outputs)
        write = partial(encode, answer, wanted)
        slow = text and sum(tensor.array.nbytes for tensor in answer.outputs) > SHORT
        content, json_bytes = await asyncio.to_thread(write) if slow else write()
        if json_bytes is None:
            return Response(content, media_type="application/json")
        headers = {LENGTH_HEADER: str(json_bytes)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def _read(self, body: bytes, encoding: str, length: int | None, model: str, version: str) -> InferRequest:
        if encoding:
            body = unzip(body, encoding, self._settings.max_unpacked_bytes)
        if length != 0:
            return parse(body, length)
        name, datatype, shape = RequestReader(self._service.manifest(model, version)).raw_shape(len(body))
        return InferRequest((parse_bytes(name, datatype, shape, body),), binary=True)


def caller_of(request: Request) -> Caller:
    host, port = request.scope.get("client") or ("", 0)
    return Caller(host, port, secret=request.headers.get(SECRET_HEADER, ""))


def _named(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _length(request: Request) -> int | None:
    said = request.headers.get(LENGTH_HEADER)
    if said is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", said):
        raise KServeError(400, f"Inference-Header-Content-Length is {said[:20]!r}: a number of bytes")
    return int(said)
