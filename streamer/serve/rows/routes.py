"""``/v1/streams/KEY``: rows of tensors by HTTP, a request at a time, over streams that keep their state in between.

``POST`` takes rows and answers with the outputs of those that were run: every whole chunk of what has come so far. The
stream goes on with the next request, over the WebSocket, or after a restart, until ``DELETE``, ``?end=1``, or until
nobody has come for ``keep_seconds``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamer.refusals import BadInput, Overflow, Refused
from streamer.serve.body import in_thread, problem, read_body, unzip
from streamer.serve.readings.parsed import BodyError
from streamer.serve.stream.protocol import load
from streamer.streams.exchange import Exchange
from streamer.streams.rows import RowReader
from streamer.tasks.raw import plain

if TYPE_CHECKING:
    from streamer.serve.stream.connection import Streams
    from streamer.streams.session import Session

__all__ = ["PREFIX", "RowRoutes"]

PREFIX = "/v1/streams/"
LINES = "application/x-ndjson"
BYTES = "application/octet-stream"
#: HTTP status for every reason of a refusal; any other is 503.
STATUS = {
    "unknown_model": 404,
    "unknown_stream": 404,
    "key": 400,
    "options": 400,
    "rate": 400,
    "conflict": 409,
    "snapshot": 409,
    "taken_over": 409,
    "deleted": 409,
    "idle_timeout": 409,
    "model_failed": 500,
}
#: A number of an output as JSON may take so many times its bytes.
JSON_GROWTH = 6


class Told(Exception):  # noqa: N818
    """The request ends here, with this answer."""

    def __init__(self, status: int, message: str, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after, self.facts = status, message, retry_after, facts

    def response(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return JSONResponse({"error": self.message, **self.facts}, self.status, headers)


class RowRoutes:
    def __init__(self, streams: Streams) -> None:
        self._streams, self._registry, self._settings = streams, streams.registry, streams.settings
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}  # a key's requests, one after the other; who waits

    def routes(self) -> list[Route]:
        path = PREFIX + "{key:path}"
        return [
            Route(path, self._guarded(self._post), methods=["POST"]),
            Route(path, self._guarded(self._get), methods=["GET"]),
            Route(path, self._guarded(self._delete), methods=["DELETE"]),
        ]

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            if closed := self._streams.closed:
                return problem(503, ": ".join(closed), 1.0)
            try:
                return await endpoint(request)
            except Told as known:
                return known.response()
            except BodyError as error:
                return problem(error.status, str(error))
            except Refused as error:
                told = Told(STATUS.get(error.reason, 503), error.message, error.retry_after, code=error.reason)
                return told.response()

        return answer

    # -- rows in, outputs out ----------------------------------------------------------------------------------------

    async def _post(self, request: Request) -> Response:
        query, key = request.query_params, request.path_params["key"]
        engine = self._registry.engine(query.get("model") or await self._model_of(key))
        reader = RowReader(engine.manifest)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        raw = await read_body(request, self._settings.max_body_bytes)
        encoding = request.headers.get("content-encoding", "")
        limit = self._settings.max_unpacked_bytes
        body = await in_thread(lambda: unzip(raw, encoding, limit), len(raw))
        asked = await in_thread(lambda: Asked.parse(body, kind, reader), len(body))
        per_row = sum(np.dtype(o.dtype).itemsize * int(np.prod(o.shape)) for o in engine.manifest.outputs)
        if len(asked.rows) * per_row // engine.manifest.chunk > self._settings.max_body_bytes:
            most = max(1, self._settings.max_body_bytes * engine.manifest.chunk // per_row)
            raise Told(413, f"the outputs of {len(asked.rows)} rows are too long for an answer: send {most} at a time")
        async with self._alone(key):
            return await self._exchange(request, key, engine.manifest.name, asked, LINES if kind == LINES else None)

    async def _exchange(self, request: Request, key: str, model: str, asked: Asked, form: str | None) -> Response:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        query, end = request.query_params, _flag(request, "end")

        def over() -> None:  # from a lane
            loop.call_soon_threadsafe(done.set)

        exchange = Exchange(over)
        session = await self._open(key, model, asked, exchange)
        try:
            resumed = session.resumed
            self._expect(query.get("position"), session)
            try:
                exchange.send(session, asked.rows, end=end)
            except Overflow as error:
                raise Told(503, str(error), 1.0, position=session.received) from error
            except BadInput as error:
                raise Told(400, str(error), position=session.received) from error
            position = session.received
            try:
                await asyncio.wait_for(done.wait(), self._settings.answer_seconds)
            except TimeoutError:
                late = f"are not run after {self._settings.answer_seconds:g} s (answer_seconds)"
                raise Told(504, f"the rows were taken, but {late}", position=position) from None
            if exchange.error is not None:
                code = exchange.error["code"]
                raise Told(STATUS.get(code, 503), exchange.error["message"], code=code)
            safe = self._registry.keeper.acknowledged(session) or 0
            if not end and _flag(request, "safe"):
                safe = await self._save(session)
                if safe < position:
                    text = "the rows were run, but could not be saved"
                    raise Told(503, text, 1.0, position=position, acknowledged=safe)
        finally:
            self._registry.detach(session, exchange.sink)
            if session.state == "ended" or not (session.resumed or session.received):  # over, or it has never begun
                await asyncio.to_thread(self._registry.discard, session)
        facts = {"stream": key, "model": model, "resumed": resumed, "position": position, "acknowledged": safe}
        lines = LINES in request.headers.get("accept", form or "")
        size = sum(array.nbytes for event in exchange.events for array in event.get("outputs", {}).values())
        return await in_thread(lambda: _answer(exchange.events, facts, lines), size * JSON_GROWTH)

    async def _open(self, key: str, model: str, asked: Asked, exchange: Exchange) -> Session:
        wishes: dict[str, Any] = {"model": model, "key": key, "sink": exchange.sink}
        wishes |= {"options": asked.options, "conditions": asked.conditions}
        awake = self._registry.rejoin(**wishes)
        return await asyncio.to_thread(lambda: self._registry.open(**wishes)) if awake is None else awake

    def _expect(self, said: str | None, session: Session) -> None:
        """``?position=N``: the client's own count, so that no row is sent twice or left out."""
        if said is None:
            return
        if not said.isdecimal():
            raise Told(400, f"position is a number of rows, not {said[:40]!r}")
        if int(said) != session.received:
            text = f"the stream stands at row {session.received}, not {said[:20]}: send from there"
            raise Told(409, text, code="position", position=session.received)

    async def _save(self, session: Session) -> int:
        loop = asyncio.get_running_loop()
        saved: asyncio.Future[int] = loop.create_future()

        def told(position: int) -> None:  # from the keeper's thread
            loop.call_soon_threadsafe(lambda: None if saved.done() else saved.set_result(position))

        self._registry.keeper.ask(session, told)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(saved, self._settings.answer_seconds)
        return 0

    async def _model_of(self, key: str) -> str | None:
        """Of the stream that has the key already."""
        if awake := self._registry.model_of(key):
            return awake
        asleep = await asyncio.to_thread(self._registry.look, key)
        return None if asleep is None else asleep["model"]

    # -- facts and the end -------------------------------------------------------------------------------------------

    async def _get(self, request: Request) -> Response:
        key = request.path_params["key"]
        found = await asyncio.to_thread(self._registry.look, key)
        if found is None:
            raise Told(404, f"no stream {key[:200]!r} is known here", code="unknown_stream")
        return JSONResponse(found)

    async def _delete(self, request: Request) -> Response:
        key = request.path_params["key"]
        if not await asyncio.to_thread(self._registry.delete, key):
            raise Told(404, f"no stream {key[:200]!r} is known here", code="unknown_stream")
        return Response(status_code=204)

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Requests of one key in the order in which they came."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = lock, waiting - 1


class Asked:
    """What a body holds: rows, and what is set when the stream begins."""

    def __init__(self, rows: NDArray[Any], options: dict[str, Any], conditions: dict[str, Any]) -> None:
        self.rows, self.options, self.conditions = rows, options, conditions

    @classmethod
    def parse(cls, body: bytes, kind: str, reader: RowReader) -> Asked:
        """Raises :class:`Told`."""
        try:
            if kind == BYTES:
                return cls(reader.of_bytes(body), {}, {})
            if kind == LINES:
                return cls(reader.of_values([load(line) for line in body.splitlines() if line.strip()]), {}, {})
            document = load(body or b"[]")
            if not isinstance(document, dict):
                return cls(reader.of_values(document), {}, {})
            if strange := sorted(set(document) - {"values", "inputs", "options", "conditions"}):
                raise Told(400, f"{strange[0][:100]!r} is not values, inputs, options or conditions")
            options, conditions = document.get("options", {}), document.get("conditions", {})
            if not isinstance(options, dict) or not isinstance(conditions, dict):
                raise Told(400, "options and conditions are objects")
            if "inputs" in document and "values" not in document:
                return cls(reader.of_inputs(document["inputs"]), options, conditions)
            if "inputs" in document:
                raise Told(400, "give either values or inputs")
            return cls(reader.of_values(document.get("values", [])), options, conditions)
        except BadInput as error:
            raise Told(400, str(error), code="bad_rows") from error
        except (ValueError, RecursionError) as error:
            what = "lines of JSON" if kind == LINES else f"JSON (Content-Type {LINES} and {BYTES} are taken, too)"
            raise Told(400, f"the body is not {what}: {error}", code="bad_json") from error


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "0").lower() not in ("0", "false", "")


def _answer(events: list[dict[str, Any]], facts: dict[str, Any], lines: bool) -> Response:
    said = [plain(event) for event in events]
    if not lines:
        return JSONResponse({**facts, "events": said})
    rows = [*said, {"type": "position", **facts}]
    return Response("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), media_type=LINES)
