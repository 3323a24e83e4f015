"""Inference over HTTP: ``POST /v2/models/NAME[/versions/V]/infer``."""

from __future__ import annotations

import logging
import re
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.serve.access.grant import grant_of
from streamer.serve.body import SHORT, json_fits, problem, read_body, unzip
from streamer.serve.headers import headers_of
from streamer.serve.kserve.caller import SECRET_HEADER, Caller
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.http_codec import LENGTH_HEADER, encode, parse
from streamer.serve.kserve.http_errors import error_response
from streamer.serve.kserve.messages import InferRequest
from streamer.serve.kserve.service import InferenceService
from streamer.serve.kserve.shapes import RequestReader
from streamer.serve.kserve.tensors import parse_bytes
from streamer.serve.parse_threads import json_thread
from streamer.serve.readings.parsed import BodyError

__all__ = ["INFER_PATH", "InferEndpoint"]

log = logging.getLogger(__name__)

#: Paths with the larger limit for request bodies.
INFER_PATH = re.compile(r"/v2/models/(?P<model>[^/]+)(/versions/(?P<version>[^/]+))?/infer")


class InferEndpoint:
    """An ASGI application in front of ``app``: the router and its layers would take as long as the rest of a
    request."""

    def __init__(self, app: ASGIApp, service: InferenceService) -> None:
        self._app, self._service, self._settings = app, service, service.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] == "POST"
        found = INFER_PATH.fullmatch(scope["path"]) if asked else None
        if found is None:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            response = await self._infer(request, found["model"], found["version"] or "")
        except KServeError as error:
            response = error_response(error)
        except BodyError as error:
            response = problem(error.status, str(error), 1.0 if error.status == 503 else None)
        except Exception:
            log.exception("a request for inference failed")
            response = problem(500, "the daemon failed at this request, its log says why")
        await response(scope, receive, send)

    async def _infer(self, request: Request, model: str, version: str) -> Response:
        headers = headers_of(request.scope)
        length = _length(headers.get(LENGTH_HEADER))
        encoding = headers.get("content-encoding", "")
        body = await read_body(request, self._settings.max_body_bytes)
        # parsing JSON and decompressing are slow, so they run in a thread
        slow = bool(encoding) or (len(body) if length is None else length) > SHORT
        read = partial(self._read, body, encoding, length, model, version)
        wanted: InferRequest = await json_thread(read) if slow else read()
        answer = await self._service.infer(model, version, wanted, _caller(request))
        text = not all(o.binary for o in wanted.outputs) if wanted.outputs else not wanted.binary
        write = partial(encode, answer, wanted)
        slow = text and sum(tensor.array.nbytes for tensor in answer.outputs) > SHORT
        content, json_bytes = await json_thread(write) if slow else write()
        if json_bytes is None:
            return Response(content, media_type="application/json")
        headers = {LENGTH_HEADER: str(json_bytes)}
        return Response(content, media_type="application/octet-stream", headers=headers)

    def _read(self, body: bytes, encoding: str, length: int | None, model: str, version: str) -> InferRequest:
        if encoding:
            body = unzip(body, encoding, self._settings.max_unpacked_bytes)
        if length != 0:
            json_fits(len(body) if length is None else length, self._settings.max_json_bytes)
            return parse(body, length)
        name, datatype, shape = RequestReader(self._service.manifest(model, version)).raw_shape(len(body))
        return InferRequest((parse_bytes(name, datatype, shape, body),), binary=True)


def _caller(request: Request) -> Caller:
    host, port = request.scope.get("client") or ("", 0)
    secret = headers_of(request.scope).get(SECRET_HEADER, "")
    return Caller(host, port, secret=secret, owner=grant_of(request.scope).owner)


def _length(header: str | None) -> int | None:
    if header is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", header):
        raise KServeError(400, f"Inference-Header-Content-Length is {header[:20]!r}: a number of bytes")
    return int(header)
