"""``/v1/streams/KEY``: rows of tensors by HTTP, a request at a time, on streams that keep their state in between.

``POST`` takes rows and answers with the outputs of all whole chunks that are complete by then. The stream goes on with
the next request, over the WebSocket, or after a restart, until ``DELETE``, ``?end=1``, or until no request has come for
``keep_seconds``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, quote

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from streamer.json_words import json_trouble
from streamer.names import name_of
from streamer.refusals import BadInput, Overflow, Refused
from streamer.serve.access.grant import grant_of
from streamer.serve.body import SHORT, in_thread, json_fits, problem, read_body, unzip
from streamer.serve.disk_threads import disk_thread
from streamer.serve.headers import headers_of
from streamer.serve.parse_threads import json_thread, parse_thread
from streamer.serve.readings.parsed import BodyError
from streamer.serve.stream.protocol import encode, load
from streamer.streams.exchange import Exchange
from streamer.streams.rows import RowReader
from streamer.tasks.raw import plain

if TYPE_CHECKING:
    from streamer.contract.manifest import Manifest
    from streamer.serve.stream.connections import StreamConnections
    from streamer.streams.session import Session

__all__ = ["PREFIX", "RowRoutes"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Request)
PREFIX = "/v1/streams/"
LINES = "application/x-ndjson"
BYTES = "application/octet-stream"
#: HTTP status for every reason of a refusal; any other is 503.
STATUS = {
    "unknown_model": 404,
    "unknown_stream": 404,
    "key": 400,
    "quota": 429,
    "options": 400,
    "rate": 400,
    "conflict": 409,
    "snapshot": 409,
    "taken_over": 409,
    "deleted": 409,
    "moved": 308,
    "idle_timeout": 409,
    "model_failed": 500,
}
#: Bytes of the longest query whose parsed form is cached.
SHORT_QUERY = 256
#: Most bytes of JSON for each byte of an output's number.
JSON_GROWTH = 6


class HttpProblem(Exception):  # noqa: N818
    """The request ends with this answer."""

    def __init__(self, status: int, message: str, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after, self.facts = status, message, retry_after, facts

    def response(self) -> Response:
        headers = {} if self.retry_after is None else {"Retry-After": str(max(1, round(self.retry_after)))}
        return JSONResponse({"error": self.message, **self.facts}, self.status, headers)


class RowRequest(Request):
    """A request with its headers and query as dictionaries: Starlette searches a list, and raises for a missing one."""

    @property
    def given(self) -> dict[str, str]:
        return headers_of(self.scope)

    @property
    def asked(self) -> Mapping[str, str]:
        """The query; the last value of a repeated parameter."""
        query = self.scope["query_string"]
        return _known_query(query) if len(query) <= SHORT_QUERY else _query(query)


def _query(query: bytes) -> Mapping[str, str]:
    """Parse a query as Starlette does."""
    return MappingProxyType(dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)))


#: A client sends the same query with every request: the cache of parsed queries, none longer than :data:`SHORT_QUERY`.
_known_query = lru_cache(1024)(_query)


class _Model:
    """What requests for one model need, computed once."""

    def __init__(self, manifest: Manifest, max_bytes: int) -> None:
        self.manifest, self.reader = manifest, RowReader(manifest)
        per_chunk = sum(np.dtype(o.dtype).itemsize * math.prod(o.shape) for o in manifest.outputs)
        #: Rows whose outputs are not too long for an answer.
        self.most = max(1, max_bytes * manifest.chunk // max(1, per_chunk))


class _Turn:
    """The order of a key's requests, which run one after the other as they came; and their number."""

    __slots__ = ("count", "lock")

    def __init__(self) -> None:
        self.lock, self.count = asyncio.Lock(), 0


class RowRoutes:
    """``POST`` is answered :meth:`before` the router, whose layers would cost as much as the rest of an answer; the
    other methods are :meth:`routes` of the router."""

    def __init__(self, streams: StreamConnections) -> None:
        self._streams, self._registry, self._settings = streams, streams.registry, streams.settings
        self._turns: dict[str, _Turn] = {}
        self._models: dict[str, _Model] = {}

    def routes(self) -> list[Route]:
        path = PREFIX + "{key:path}"

        def route(endpoint: Callable[[Request, str], Awaitable[Response]], method: str) -> Route:
            async def answer(request: Request) -> Response:
                return await self._guarded(endpoint, request, request.path_params["key"])

            return Route(path, answer, methods=[method])

        return [route(self._get, "GET"), route(self._delete, "DELETE")]

    def before(self, app: ASGIApp) -> ASGIApp:
        """An application that answers ``POST`` requests with rows, and passes others to ``app``."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith(PREFIX):
                await app(scope, receive, send)
                return
            try:
                response = await self._guarded(self._post, RowRequest(scope, receive), scope["path"][len(PREFIX) :])
            except Exception:
                log.exception("a request with rows failed")
                response = problem(500, "the daemon failed at this request, its log says why")
            await response(scope, receive, send)

        return answer

    async def _guarded(self, endpoint: Callable[[R, str], Awaitable[Response]], request: R, key: str) -> Response:
        if closed := self._streams.closed:
            return problem(503, ": ".join(closed), 1.0)
        try:
            return await endpoint(request, grant_of(request.scope).own(key))
        except HttpProblem as known:
            return known.response()
        except BodyError as error:
            return problem(error.status, str(error))
        except Refused as error:
            status = STATUS.get(error.reason, 503)
            answer = HttpProblem(status, error.message, error.retry_after, code=error.reason).response()
            if error.url is not None:
                answer.headers["Location"] = error.url.rstrip("/") + PREFIX + quote(key)
            return answer

    # -- rows in, outputs out ----------------------------------------------------------------------------------------

    async def _post(self, request: RowRequest, key: str) -> Response:
        model = self._model(request.asked.get("model") or await self._model_of(key))
        kind = request.given.get("content-type", "").partition(";")[0].strip().lower()
        encoding = request.given.get("content-encoding", "")
        raw = await read_body(request, self._settings.max_body_bytes)
        if encoding or len(raw) > SHORT:  # a packed body may be long
            thread = parse_thread if kind == BYTES else json_thread
            body = await thread(lambda: self._read(raw, encoding, kind, model.reader))
        else:
            body = RowBody.parse(raw, kind, model.reader)
        if len(body.rows) > model.most:
            text = f"the outputs of {len(body.rows)} rows are too long for an answer: send {model.most} at a time"
            raise HttpProblem(413, text)
        turn = self._turns.setdefault(key, _Turn())
        turn.count += 1
        try:
            async with turn.lock:
                name = model.manifest.name
                return await self._exchange(request, key, name, body, LINES if kind == LINES else None)
        finally:
            turn.count -= 1
            if not turn.count:
                del self._turns[key]

    def _model(self, name: str | None) -> _Model:
        manifest = self._registry.engine(name).manifest
        found = self._models.get(manifest.name)
        if found is None or found.manifest is not manifest:
            found = self._models[manifest.name] = _Model(manifest, self._settings.max_body_bytes)
        return found

    def _read(self, raw: bytes, encoding: str, kind: str, reader: RowReader) -> RowBody:
        body = unzip(raw, encoding, self._settings.max_unpacked_bytes)
        if kind != BYTES:
            json_fits(len(body), self._settings.max_json_bytes)
        return RowBody.parse(body, kind, reader)

    async def _exchange(self, request: RowRequest, key: str, model: str, body: RowBody, form: str | None) -> Response:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bool] = loop.create_future()  # the result: whether it was in time
        query, end = request.asked, _flag(request, "end")

        def over(in_time: bool = True) -> None:  # on the event loop, after earlier calls of the lanes
            if not done.done():
                done.set_result(in_time)

        exchange = Exchange(lambda: self._streams.outbox.put(over))  # exchanges that end together take one wake-up
        session = await self._open(key, model, body, exchange)
        try:
            resumed = session.resumed
            self._expect(query.get("position"), session)
            try:
                exchange.send(session, body.rows, end=end)
            except Overflow as error:
                raise HttpProblem(503, str(error), 1.0, position=session.received) from error
            except BadInput as error:
                raise HttpProblem(400, str(error), position=session.received) from error
            position = session.received
            patience = loop.call_later(self._settings.answer_seconds, over, False)
            try:
                in_time = await done
            finally:
                patience.cancel()
            if not in_time:
                late = f"are not run after {self._settings.answer_seconds:g} s (answer_seconds)"
                raise HttpProblem(504, f"the rows were taken, but {late}", position=position)
            if exchange.error is not None:
                code = exchange.error["code"]
                if (url := exchange.error.get("url")) is not None:
                    raise Refused(code, exchange.error["message"], None, url)
                raise HttpProblem(STATUS.get(code, 503), exchange.error["message"], code=code)
            safe = self._registry.keeper.acknowledged(session) or 0
            if not end and _flag(request, "safe"):
                safe = await self._save(session)
                if safe < position:
                    text = "the rows were run, but could not be saved"
                    raise HttpProblem(503, text, 1.0, position=position, acknowledged=safe)
        finally:
            self._registry.detach(session, exchange)
            # the stream is over, or has never begun
            if session.state == "ended" or not (session.resumed or session.received):
                await disk_thread(lambda: self._registry.discard(session))
        facts = {"stream": name_of(key), "model": model, "resumed": resumed, "position": position, "acknowledged": safe}
        lines = LINES in request.given.get("accept", form or "")
        size = sum(array.nbytes for event in exchange.events for array in event.get("outputs", {}).values())
        return await in_thread(lambda: _answer(exchange.events, facts, lines), size * JSON_GROWTH)

    async def _open(self, key: str, model: str, body: RowBody, exchange: Exchange) -> Session:
        """Open the stream; in a thread only if it is not awake, since it may wait for the disk."""
        given: dict[str, Any] = {"model": model, "key": key, "sink": exchange}
        given |= {"options": body.options, "conditions": body.conditions}
        awake = self._registry.rejoin(**given)
        return await disk_thread(lambda: self._registry.open(**given)) if awake is None else awake

    def _expect(self, position: str | None, session: Session) -> None:
        """Check ``?position=N``, the client's own count, so that no row is sent twice or left out."""
        if position is None:
            return
        if not position.isdecimal():
            raise HttpProblem(400, f"position is a number of rows, not {position[:40]!r}")
        if int(position) != session.received:
            text = f"the stream stands at row {session.received}, not {position[:20]}: send from there"
            raise HttpProblem(409, text, code="position", position=session.received)

    async def _save(self, session: Session) -> int:
        loop = asyncio.get_running_loop()
        saved: asyncio.Future[int] = loop.create_future()

        def on_saved(position: int) -> None:  # from the keeper's thread
            loop.call_soon_threadsafe(lambda: None if saved.done() else saved.set_result(position))

        self._registry.keeper.ask(session, on_saved)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(saved, self._settings.answer_seconds)
        return 0

    async def _model_of(self, key: str) -> str | None:
        """The model of the stream that has this key; ``None``: there is none."""
        if awake := self._registry.model_of(key):
            return awake
        asleep = await disk_thread(lambda: self._registry.look(key))
        return None if asleep is None else asleep["model"]

    # -- facts and the end -------------------------------------------------------------------------------------------

    async def _get(self, request: Request, key: str) -> Response:
        found = await disk_thread(lambda: self._registry.look(key))
        if found is None:
            raise HttpProblem(404, f"no stream {name_of(key)[:200]!r} is known here", code="unknown_stream")
        return JSONResponse(found)

    async def _delete(self, request: Request, key: str) -> Response:
        if not await disk_thread(lambda: self._registry.delete(key)):
            raise HttpProblem(404, f"no stream {name_of(key)[:200]!r} is known here", code="unknown_stream")
        return Response(status_code=204)


class RowBody:
    """A parsed body: rows, and the options and conditions of a new stream."""

    def __init__(self, rows: NDArray[Any], options: dict[str, Any], conditions: dict[str, Any]) -> None:
        self.rows, self.options, self.conditions = rows, options, conditions

    @classmethod
    def parse(cls, body: bytes, kind: str, reader: RowReader) -> RowBody:
        """Raises :class:`HttpProblem`."""
        try:
            if kind == BYTES:
                return cls(reader.of_bytes(body), {}, {})
            if kind == LINES:
                return cls(reader.of_values([load(line) for line in body.splitlines() if line.strip()]), {}, {})
            document = load(body or b"[]")
            if not isinstance(document, dict):
                return cls(reader.of_values(document), {}, {})
            if strange := sorted(set(document) - {"values", "inputs", "options", "conditions"}):
                raise HttpProblem(400, f"{strange[0][:100]!r} is not values, inputs, options or conditions")
            options, conditions = document.get("options", {}), document.get("conditions", {})
            if not isinstance(options, dict) or not isinstance(conditions, dict):
                raise HttpProblem(400, "options and conditions are objects")
            if "inputs" in document and "values" not in document:
                return cls(reader.of_inputs(document["inputs"]), options, conditions)
            if "inputs" in document:
                raise HttpProblem(400, "give either values or inputs")
            return cls(reader.of_values(document.get("values", [])), options, conditions)
        except BadInput as error:
            raise HttpProblem(400, str(error), code="bad_rows") from error
        except (ValueError, RecursionError) as error:
            what = "lines of JSON" if kind == LINES else f"JSON (Content-Type {LINES} and {BYTES} are taken, too)"
            raise HttpProblem(400, f"the body is not {what}: {json_trouble(error)}", code="bad_json") from error


def _flag(request: RowRequest, name: str) -> bool:
    return request.asked.get(name, "0").lower() not in ("0", "false", "")


def _answer(events: list[dict[str, Any]], facts: dict[str, Any], lines: bool) -> Response:
    if not lines:  # one by one: other threads get the interpreter in between
        encoded = b",".join(encode(plain(event)) for event in events)
        return Response(encode(facts)[:-1] + b',"events":[' + encoded + b"]}", media_type="application/json")
    rows = [*map(plain, events), {"type": "position", **facts}]
    return Response("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), media_type=LINES)
