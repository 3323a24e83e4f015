"""Readings over HTTP, and forecasts of sensors.

A request is one batch, answered when the batch is on the disk. Bad readings are left out, counted and named in the
response; the others are taken.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamer.names import SEPARATOR, name_of, stream_id
from streamer.sensors.choice import AmbiguousError, NoSensorsError
from streamer.sensors.columns import Forecasts, ReadingBatch
from streamer.sensors.commit import Receipt
from streamer.sensors.host import ElsewhereError
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import to_dict
from streamer.sensors.owners import only, owned_by, shown
from streamer.sensors.writes import BusyError
from streamer.serve.access.grant import Denied, grant_of
from streamer.serve.body import LONG, in_thread, is_packed, problem, read_body, threads_behind, unzip
from streamer.serve.bounds import TooMuchError
from streamer.serve.readings import influx
from streamer.serve.readings.parameters import ReadingQuery, reading_query
from streamer.serve.readings.parsed import EXPECTED, BodyError, Parsed, expected, fleet_of, read_batch
from streamer.serve.readings.remedies import as_parameters
from streamer.sources import SourceError
from streamer.sources.readings import Readings
from streamer.sources.times import show_time
from streamer.store import StoreError

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors

__all__ = ["WRITES", "routes"]

#: Paths with the larger limit for request bodies.
WRITES = frozenset({"/v1/readings", "/api/v2/write", "/write", "/api/v1/write", "/v1/metrics"})
#: Influx's names of units, in seconds; ``u`` is microseconds in InfluxDB 1.
UNITS = {"ns": 1e-9, "n": 1e-9, "us": 1e-6, "u": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
PAGE = 1000
#: The error for a reading without a forecast; the log has the details.
FAILED = "the reading was taken, but it failed when it was run: do not send it again"

Endpoint = Callable[["ReadingRoutes", Request], Awaitable[Response]]


def routes(sensors: Sensors) -> list[Route]:
    handlers = ReadingRoutes(sensors)
    return [
        *influx.routes(handlers.trouble),
        Route("/v1/readings", handlers.readings, methods=["POST"]),
        Route("/api/v2/write", handlers.line_protocol, methods=["POST"]),
        Route("/write", handlers.line_protocol, methods=["POST"]),
        Route("/api/v1/write", handlers.remote_write, methods=["POST"]),
        Route("/v1/metrics", handlers.otlp, methods=["POST"]),
        Route("/v1/forecast", handlers.names, methods=["GET"]),
        Route("/v1/forecast/{stream:path}", handlers.forecast, methods=["GET"]),
        Route("/v1/forecast/{stream:path}", handlers.forget, methods=["DELETE"]),
    ]


def guarded(
    endpoint: Callable[[ReadingRoutes, Request], Awaitable[Response]],
) -> Callable[[ReadingRoutes, Request], Awaitable[Response]]:
    """Turn errors into a status and a message."""

    async def answer(self: ReadingRoutes, request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except BodyError as error:
            self.count({"body": 1})
            return problem(error.status, str(error))
        except TooMuchError as error:
            return problem(503, str(error))
        except Denied as denied:
            return problem(denied.status, denied.message)
        except SourceError as error:
            self.count({"body": 1})
            return problem(400, str(error))
        except NoSensorsError as error:
            return problem(404, str(error))
        except AmbiguousError as error:
            return problem(409, str(error))
        except ElsewhereError as error:
            where = f"{error.url.rstrip('/')}{request.url.path}" + (
                f"?{request.url.query}" if request.url.query else ""
            )
            return problem(307, str(error), headers={"Location": where})
        except BusyError as error:
            return problem(503, str(error), error.retry_after)
        except StoreError as error:
            status = 507 if error.full and not request.url.path.startswith("/v1/metrics") else 503  # OTLP: only 503
            return problem(status, f"nothing was taken: {error}", 5.0)

    return answer


class ReadingRoutes:
    def __init__(self, sensors: Sensors) -> None:
        self._sensors, self._settings = sensors, sensors.settings

    # -- in ------------------------------------------------------------------------------------------------------------

    @guarded
    async def readings(self, request: Request) -> Response:
        """CSV or NDJSON, as ``streamer forecast`` reads it. ``?forecast=1``: the response has the forecast after each
        reading, or an ``error`` if a reading failed.

        ``?model=``: the model, which is otherwise chosen by the columns. Rows of a model of several variables belong to
        the stream that a column names, else to ``?stream=``, else to one with the model's name."""
        query = reading_query(request.query_params, self._settings.missing)
        if query.forecast and not grant_of(request.scope).may("read"):
            self._sensors.metrics.denied.labels("scope").inc()
            raise Denied(403, "scope", "this token may not do that: ?forecast=1 needs the scope read")
        body = await self._body(request)
        source, fleet, batch, faults = await in_thread(
            lambda: self._parse(request, query, body), LONG if is_packed(body, "") else len(body)
        )
        lost = source.bad + source.cells
        self.count({"malformed": lost})
        batch = owned_by(grant_of(request.scope).owner, batch)
        if not len(batch):
            raise BodyError(400, "; ".join([*faults[:5], expected(source)]))
        if query.forecast:
            receipt, forecasts = await self._sensors.ask(batch, "http", fleet)
            if not lost and not receipt.refused:
                lines = await in_thread(lambda: _lines(shown(forecasts)), forecasts.quantiles.nbytes)
                return Response(lines, media_type="application/x-ndjson")
            run: Forecasts | None = forecasts
        else:
            receipt, run = await self._sensors.tell(batch, "http", fleet, self._settings.answer_seconds)
        answer: dict[str, Any] = {"taken": receipt.taken, "refused": receipt.refused + lost}
        left = list(map(as_parameters, source.left_out() + source.report.notes))
        for name, what, found in _unused(run and shown(run)):
            answer["taken"] -= len(found)
            answer[name] = len(found)
            left.append(f"{len(found)} {what}, the first: {found[0][0][:200]} at {show_time(found[0][1])}")
        errors = faults + self._refused(receipt)
        answer |= ({"left_out": left} if left else {}) | ({"errors": errors} if errors else {})
        return JSONResponse(answer, _status(receipt) if errors else 200, _later(receipt))

    def _parse(
        self, request: Request, query: ReadingQuery, body: bytes
    ) -> tuple[Readings, Fleet, ReadingBatch, list[str]]:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            raise BodyError(400, f"body: form data (curl -F). {EXPECTED}")
        if body[:2] == b"\x1f\x8b":
            body = unzip(body, "gzip", self._settings.max_unpacked_bytes)
        faults: list[str] = []
        source = Readings("body", query.columns, faults.append, body)
        fleet = fleet_of(source, self._sensors, query.model)
        name, variables = fleet.model.manifest.name, fleet.layout.variables
        if variables and query.columns.values:
            raise BodyError(400, f"?value= is not for {name}: it takes {', '.join(variables)}; leave ?value= out")
        source.stream = query.stream or ""
        try:
            batch = read_batch(source, fleet.layout, query.stream or name, partial=query.model is not None)
        except SourceError as error:
            drops = kind == "application/x-www-form-urlencoded" and body.count(b"\n") < 2
            why = as_parameters(str(error))
            raise BodyError(400, f"{why}. {EXPECTED}" if drops or b"\n" not in body.strip() else why) from None
        return source, fleet, batch, [as_parameters(fault) for fault in faults if fault not in source.report.notes]

    @guarded
    async def line_protocol(self, request: Request) -> Response:
        from streamer.serve.readings.line_protocol import parse

        precision = request.query_params.get("precision") or "ns"
        if precision not in UNITS:
            raise BodyError(400, f"?precision={precision[:20]!r}: give one of {', '.join(UNITS)}")
        body = await self._body(request)
        parsed = await in_thread(lambda: parse(body, UNITS[precision]), len(body))
        receipt = await self._take(request, parsed, "line_protocol")
        if errors := parsed.faults + self._refused(receipt):
            text = f"partial write: {receipt.taken} readings were taken; {'; '.join(errors)}"
            answer = {"code": "unavailable" if receipt.later else "invalid", "message": text, "error": text}
            return JSONResponse(answer, _status(receipt), _later(receipt))
        return Response(status_code=204)

    @guarded
    async def remote_write(self, request: Request) -> Response:
        from streamer.serve.readings.remote_write import negotiate

        self._check_threads()
        raw = await read_body(request, self._settings.max_body_bytes)
        parse = negotiate(request.headers)
        parsed = await in_thread(lambda: parse(raw, self._settings.max_unpacked_bytes), LONG)  # it is packed
        receipt = await self._take(request, parsed, "remote_write")
        headers = {
            "X-Prometheus-Remote-Write-Samples-Written": str(receipt.taken + parsed.skipped.get("stale", 0)),
            "X-Prometheus-Remote-Write-Histograms-Written": "0",
            "X-Prometheus-Remote-Write-Exemplars-Written": "0",
        }
        if errors := parsed.faults + self._refused(receipt):
            # 400: the sender must not send it again, the valid samples were taken. 503: it sends all again; then those
            # that were taken are duplicates.
            text = f"{receipt.taken} samples were taken; {'; '.join(errors)}"
            return problem(_status(receipt), text, headers=headers | (_later(receipt) or {}))
        return Response(status_code=204, headers=headers)

    @guarded
    async def otlp(self, request: Request) -> Response:
        from streamer.serve.readings.otlp import parse

        content_type = request.headers.get("content-type", "")
        body = await self._body(request)
        parsed = await in_thread(lambda: parse(body, content_type), len(body))
        receipt = await self._take(request, parsed, "otlp")
        rejected = receipt.refused + sum(parsed.skipped.values())
        from streamer.serve.readings.otlp import answer

        content, media_type = answer(content_type, rejected, "; ".join(parsed.faults + self._refused(receipt)))
        return Response(content, media_type=media_type)

    # -- out -----------------------------------------------------------------------------------------------------------

    @guarded
    async def names(self, request: Request) -> Response:
        """List sensors: ``?match=pump*``, and ``?after=NAME`` for the next page."""
        query = request.query_params
        after = query.get("after", "")
        known = self._sensors.names()
        own = (name_of(known[row]) for row in only(grant_of(request.scope).owner, known))
        names = [name for name in fnmatch.filter(own, query.get("match", "*")) if name > after]
        more = {"after": names[PAGE - 1]} if len(names) > PAGE else {}
        return JSONResponse({"streams": names[:PAGE]} | more)

    @guarded
    async def forecast(self, request: Request) -> Response:
        name = request.path_params["stream"]
        found = self._sensors.look(self._own(request, name), request.query_params.get("model"))
        if not found:
            return problem(404, f"no sensor {name[:200]!r} has sent a reading: GET /v1/forecast lists them")
        return JSONResponse(to_dict(found))

    @guarded
    async def forget(self, request: Request) -> Response:
        name = request.path_params["stream"]
        if not await self._sensors.forget(self._own(request, name), request.query_params.get("model")):
            return problem(404, f"no sensor {name[:200]!r} is known")
        return Response(status_code=204)

    def trouble(self) -> str:
        """Why readings are not accepted now; empty if they are."""
        try:
            self._sensors.served()
        except (BusyError, NoSensorsError) as error:
            return str(error)
        return ""

    # -- inside --------------------------------------------------------------------------------------------------------

    def count(self, refused: dict[str, int]) -> None:
        for reason, count in refused.items():
            if count:
                self._sensors.metrics.refused_readings.labels(reason).inc(count)

    def _own(self, request: Request, name: str) -> str:
        """The id of the caller's sensor with this name."""
        return stream_id(grant_of(request.scope).owner, name.replace(SEPARATOR, "\0"))

    def _check_threads(self) -> None:
        """Raises :class:`BusyError` if bodies or answers wait too long for a thread, as for waiting readings."""
        if (seconds := threads_behind()) > (most := self._settings.max_waiting_seconds / 4):
            self.count({"busy": 1})
            raise BusyError(
                f"bodies wait for {seconds:.1f} s to be read (a quarter of max_waiting_seconds)", seconds - most
            )

    async def _body(self, request: Request) -> bytes:
        self._check_threads()
        raw = await read_body(request, self._settings.max_body_bytes)
        encoding = request.headers.get("content-encoding", "")
        size = LONG if is_packed(raw, encoding) else len(raw)
        return await in_thread(lambda: unzip(raw, encoding, self._settings.max_unpacked_bytes), size)

    async def _take(self, request: Request, parsed: Parsed, way: str) -> Receipt:
        self.count(parsed.skipped)
        return await self._sensors.take(owned_by(grant_of(request.scope).owner, parsed.batch), way)

    def _refused(self, receipt: Receipt) -> list[str]:
        return [refusal.text(self._settings.max_sensors) for refusal in receipt.refusals]


def _status(receipt: Receipt) -> int:
    """The status of an answer if some readings were refused."""
    return 503 if receipt.later else 400


def _later(receipt: Receipt) -> dict[str, str] | None:
    return {"Retry-After": "5"} if receipt.later else None


def _unused(run: Forecasts | None) -> list[tuple[str, str, Sequence[tuple[str, float]]]]:
    """Readings that are on the disk and were not run: a name, a message, and which ones."""
    if run is None:
        return []
    found = (
        ("late", "late readings", run.late),
        ("duplicate", "readings of a time that had one", run.duplicates),
    )
    return [kind for kind in found if kind[2]]


def _lines(forecasts: Forecasts) -> str:
    """The forecasts, then the readings that failed."""
    found = [forecasts.to_dict(row) for row in range(len(forecasts))]
    found += ({"stream": name, "time": time, "error": FAILED} for name, time in forecasts.failed)
    return "".join(json.dumps(line) + "\n" for line in found)
