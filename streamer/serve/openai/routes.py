"""``POST /v1/audio/transcriptions`` and the model list for OpenAI's clients, on the daemon's port."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from streamer.refusals import Refused
from streamer.serve.access.grant import grant_of
from streamer.serve.body import in_thread, read_body
from streamer.serve.deltas import Deltas, finals_are_plain
from streamer.serve.openai.answers import answer_body, full_text, server_event, usage
from streamer.serve.openai.errors import OpenAIError, error_of
from streamer.serve.openai.requests import TranscriptionRequest, read_request
from streamer.serve.openai.uploads import Uploads
from streamer.serve.readings.parsed import BodyError

if TYPE_CHECKING:
    from streamer.serve.stream.connections import StreamConnections

__all__ = ["TRANSCRIPTIONS", "OpenAIRoutes", "model_list"]

log = logging.getLogger(__name__)

TRANSCRIPTIONS = "/v1/audio/transcriptions"


def model_list(models: list[dict[str, Any]]) -> dict[str, Any]:
    """The fields of ``GET /v1/models`` that OpenAI's clients read."""
    return {"object": "list", "data": [_model(model["name"]) for model in models]}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "streamer"}


class OpenAIRoutes:
    """Live on the event loop."""

    def __init__(self, streams: StreamConnections) -> None:
        self._streams, self._settings = streams, streams.settings
        self._uploads = Uploads(streams)

    def routes(self) -> list[Route]:
        return [
            Route(TRANSCRIPTIONS, self._transcriptions, methods=["POST"]),
            Route("/v1/models/{name:path}", self._one_model, methods=["GET"]),
        ]

    async def _one_model(self, request: Request) -> Response:
        name = request.path_params["name"]
        try:
            return JSONResponse(_model(self._uploads.model(name)) | {"id": name})
        except Refused as error:
            return error_of(error).response()

    async def _transcriptions(self, request: Request) -> Response:
        try:
            if closed := self._streams.closed:
                raise OpenAIError(503, ": ".join(closed), code=closed[0])
            body = await read_body(request, self._settings.max_upload_bytes, "max_upload_bytes")
            kind = request.headers.get("content-type", "")
            wish, data, name = await in_thread(lambda: read_request(body, kind), len(body))
            owner = grant_of(request.scope).owner
            if wish.stream:
                return _EventStream(self._streams, self._uploads, wish, data, name, owner)
            return await _while_connected(request, self._whole(wish, data, name, owner))
        except BodyError as error:
            return OpenAIError(error.status, str(error)).response()
        except OpenAIError as error:
            return error.response()
        except Refused as error:
            return error_of(error).response()

    async def _whole(self, wish: TranscriptionRequest, data: memoryview, name: str, owner: str) -> Response:
        events: list[dict[str, Any]] = []
        async with self._uploads.place():
            seconds = await self._uploads.transcribe(wish, data, name, events.append, owner)
        finals = [event for event in events if event["type"] == "final"]
        form, granularities = wish.response_format, wish.timestamp_granularities
        body, media = answer_body(finals, seconds, form, granularities, wish.language)
        return Response(body, media_type=media)


class _EventStream(Response):
    """The answer to ``stream=true``: the text as it grows, as server-sent events. An error before the first event has
    an HTTP status of its own."""

    media_type = "text/event-stream"

    def __init__(
        self,
        streams: StreamConnections,
        uploads: Uploads,
        wish: TranscriptionRequest,
        data: memoryview,
        name: str,
        owner: str,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._settings, self._uploads = streams.settings, uploads
        self._wish, self._data, self._name, self._owner = wish, data, name, owner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(self._write(scope, receive, send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except TimeoutError:
            log.info("a client does not read what it asked for: given up")
        finally:
            for task in (writing, gone):
                task.cancel()
            await asyncio.gather(writing, gone, return_exceptions=True)

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        # bounded by the recording's text; None: the end
        events: asyncio.Queue[bytes | OpenAIError | None] = asyncio.Queue()
        working = asyncio.create_task(self._work(events))
        patience = self._settings.send_seconds
        try:
            event = await events.get()
            if isinstance(event, OpenAIError):
                await asyncio.wait_for(event.response()(scope, receive, send), patience)
                return
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await asyncio.wait_for(send(start), patience)
            while event is not None:
                body = server_event(event.to_dict()) if isinstance(event, OpenAIError) else event
                message = {"type": "http.response.body", "body": body, "more_body": True}
                await asyncio.wait_for(send(message), patience)
                event = await events.get()
            await asyncio.wait_for(send({"type": "http.response.body", "body": b""}), patience)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    async def _work(self, events: asyncio.Queue[bytes | OpenAIError | None]) -> None:
        finals: list[dict[str, Any]] = []
        deltas = Deltas(finals_are_plain(self._settings, self._wish.options))

        def take(event: dict[str, Any]) -> None:
            if event["type"] == "final":
                finals.append(event)
            if delta := deltas.of(event):
                events.put_nowait(server_event({"type": "transcript.text.delta", "delta": delta}))

        try:
            async with self._uploads.place():
                seconds = await self._uploads.transcribe(self._wish, self._data, self._name, take, self._owner)
            done = {"type": "transcript.text.done", "text": full_text(finals), "usage": usage(seconds)}
            events.put_nowait(server_event(done))
        except OpenAIError as error:
            events.put_nowait(error)
        except Refused as error:
            events.put_nowait(error_of(error))
        except Exception:
            log.exception("an upload failed")
            events.put_nowait(OpenAIError(500, "the daemon failed at this request, its log says why"))
        finally:
            events.put_nowait(None)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _while_connected(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The result of ``work``, which is cancelled once the client is gone."""
    working, gone = asyncio.create_task(work), asyncio.create_task(_gone(request.receive))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else Response(status_code=499)
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
