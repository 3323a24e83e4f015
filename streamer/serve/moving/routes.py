"""An administrator's routes for streams, sensors and models: list, export, import, evict, move, reload.

An exported stream has the bytes of a sleeping one; any daemon that serves the same model file can go on with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamer.names import name_of, owner_of, stream_id
from streamer.refusals import Refused
from streamer.sensors.choice import AmbiguousError, NoSensorsError
from streamer.sensors.moving import SensorMover, SensorStateError
from streamer.sensors.writes import BusyError
from streamer.serve.body import problem, read_body
from streamer.serve.disk_threads import disk_thread
from streamer.serve.moving.peer import Peer
from streamer.serve.readings.parsed import BodyError
from streamer.store import StoreError
from streamer.streams.moving import PeerError

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors
    from streamer.serve.kserve.service import InferenceService
    from streamer.settings import Settings
    from streamer.streams.registry import Registry
    from streamer.streams.snapshot import Snapshot

__all__ = ["ROUTES", "MovingRoute", "MovingRoutes"]

log = logging.getLogger(__name__)

OCTETS = "application/octet-stream"
#: Most streams that one answer lists.
PAGE = 1000
#: HTTP status of a refusal, by its reason; any other is 503.
STATUS = {"unknown_stream": 404, "unknown_model": 404, "snapshot": 409, "conflict": 409, "duplicate": 409, "key": 400,
          "moved": 409}  # fmt: skip


class MovingRoute(NamedTuple):
    """``scope``: the scope that a caller needs. ``call``: the method of :class:`MovingRoutes`."""

    method: str
    path: str
    scope: str
    call: str


ROUTES = (
    MovingRoute("GET", "/v1/sessions", "admin", "list_sessions"),
    MovingRoute("POST", "/v1/sessions/{id:path}/evict", "admin", "evict"),
    MovingRoute("GET", "/v1/sessions/{id:path}", "admin", "export"),
    MovingRoute("PUT", "/v1/sessions/{id:path}", "admin", "bring"),
    MovingRoute("GET", "/v1/sensor-states/{name:path}", "admin", "export_sensor"),
    MovingRoute("PUT", "/v1/sensor-states/{name:path}", "admin", "bring_sensor"),
    MovingRoute("POST", "/v1/drain", "admin", "drain_to"),
    MovingRoute("DELETE", "/v1/drain", "admin", "stay"),
    MovingRoute("POST", "/v1/reload", "admin", "reload"),
)

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(call: Endpoint) -> Endpoint:
    """Turn errors of ``call`` into a status and a sentence."""

    @wraps(call)
    async def answer(request: Request) -> Response:
        try:
            return await call(request)
        except BodyError as error:
            return problem(error.status, str(error))
        except Refused as error:
            return problem(STATUS.get(error.reason, 503), error.message, error.retry_after)
        except (SensorStateError, AmbiguousError) as error:
            return problem(409, str(error))
        except NoSensorsError as error:
            return problem(404, str(error))
        except BusyError as error:
            return problem(503, str(error), error.retry_after)
        except StoreError as error:
            return problem(503, f"the disk failed: {error}", 5.0)
        except PeerError as error:
            return problem(502, str(error))

    return answer


class MovingRoutes:
    """``reload``: the daemon's own; returns the outcome for each model. ``sequences``: the KServe service, whose
    streams need headers along, since clients know them by other ids."""

    def __init__(
        self,
        registry: Registry,
        sensors: Sensors,
        settings: Settings,
        reload: Callable[[], dict[str, Any]],
        sequences: InferenceService,
    ) -> None:
        self._registry, self._sensors, self._settings, self._reload = registry, sensors, settings, reload
        self._sequences = sequences
        self._sensor_mover = SensorMover(sensors)

    def routes(self) -> list[Route]:
        return [
            Route(route.path, guarded(getattr(self, route.call)), methods=[route.method], name=route.call)
            for route in ROUTES
        ]

    # -- streams -------------------------------------------------------------------------------------------------------

    async def list_sessions(self, request: Request) -> Response:
        """List streams; ``?after=ID`` for the next page."""
        after = request.query_params.get("after", "")

        def find() -> dict[str, Any]:
            ids = [id for id in self._registry.mover.ids() if id > after]
            found = [facts for id in ids[:PAGE] if (facts := self._look(id)) is not None]
            return {"sessions": found} | ({"after": ids[PAGE - 1]} if len(ids) > PAGE else {})

        return JSONResponse(await disk_thread(find))

    def _look(self, id: str) -> dict[str, Any] | None:
        try:
            found = self._registry.look(id)
        except Refused as error:
            found = {"stream": name_of(id), "state": error.reason, "error": error.message}
        return found and found | ({"owner": owner} if (owner := owner_of(id)) else {})

    async def export(self, request: Request) -> Response:
        id = _id(request, "id")
        data = await disk_thread(lambda: self._registry.mover.export(id))
        if data is None:
            return problem(404, f"no stream {name_of(id)[:64]!r} is known here: GET /v1/sessions lists them")
        return Response(data, media_type=OCTETS)

    async def bring(self, request: Request) -> Response:
        id, data = _id(request, "id"), await read_body(request, self._settings.max_body_bytes)

        def take() -> Snapshot:
            saved = self._registry.mover.bring(id, data)
            try:
                self._sequences.arrived(id, request.headers)
            except ValueError as error:
                raise BodyError(400, str(error)) from error
            return saved

        saved = await disk_thread(take)
        self._count("streams", "in", 1)
        log.info("a stream was brought", extra={"stream": id, "position": saved.received})
        return JSONResponse(
            {"stream": name_of(id), "model": saved.model, "position": saved.received, "seq": saved.seq}, 201
        )

    async def evict(self, request: Request) -> Response:
        id = _id(request, "id")
        if await disk_thread(lambda: self._registry.mover.evict(id)):
            return Response(status_code=204)
        known = await disk_thread(lambda: self._registry.look(id))
        if known is None:
            return problem(404, f"no stream {name_of(id)[:64]!r} is known here: GET /v1/sessions lists them")
        return problem(
            409, f"stream {name_of(id)[:64]!r} is {known['state']}: only a stream that is awake can be put to sleep"
        )

    # -- sensors -------------------------------------------------------------------------------------------------------

    async def export_sensor(self, request: Request) -> Response:
        name, model = _id(request, "name"), request.query_params.get("model")
        data = await disk_thread(lambda: self._sensor_mover.export(name, model))
        if data is None:
            return problem(404, f"no sensor {name_of(name)[:200]!r} is known: GET /v1/forecast lists them")
        return Response(data, media_type=OCTETS)

    async def bring_sensor(self, request: Request) -> Response:
        name, model = _id(request, "name"), request.query_params.get("model")
        data = await read_body(request, self._settings.max_body_bytes)
        await disk_thread(lambda: self._sensor_mover.bring(name, model, data))
        self._count("sensors", "in", 1)
        return JSONResponse({"sensor": name_of(name)}, 201)

    def _count(self, kind: str, way: str, count: int) -> None:
        self._registry.metrics.moved.labels(kind, way).inc(count)

    # -- all of it -----------------------------------------------------------------------------------------------------

    async def drain_to(self, request: Request) -> Response:
        """Move everything. Body: ``{"to": URL}``, optionally ``"token"`` for the other daemon. The answer comes once
        all has moved."""
        try:
            asked = json.loads(await read_body(request, self._settings.max_control_bytes))
            url, token = asked["to"], asked.get("token")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BodyError(400, 'body: {"to": "http://HOST:PORT"} is expected') from None
        peer = Peer(str(url), None if token is None else str(token))

        def bring(id: str, data: bytes) -> None:
            peer.bring(id, data, self._sequences.parting(id, data))

        def move() -> dict[str, Any]:
            peer.ask("DELETE", "/v1/drain")  # it may have sent its own here before
            streams = self._registry.mover.drain_to(peer.url, bring)
            return {"streams": streams, "sensors": self._sensor_mover.drain_to(peer.url, peer.bring_sensor)}

        found = await asyncio.to_thread(move)
        for kind, result in found.items():
            self._count(kind, "out", result["moved"])
        log.info("moved", extra={"url": peer.url, **{kind: result["moved"] for kind, result in found.items()}})
        return JSONResponse(found)

    async def stay(self, request: Request) -> Response:
        """Take new streams and readings here again."""
        self._registry.mover.stay()
        self._sensor_mover.stay()
        return Response(status_code=204)

    async def reload(self, request: Request) -> Response:
        """Load model files that changed; the answer has the outcome for each model. If one fails, its old version
        serves on."""
        return JSONResponse(await asyncio.to_thread(self._reload))


def _id(request: Request, parameter: str) -> str:
    """The id of the stream or sensor with the name in ``parameter`` and the owner in ``?owner=``, if there is one."""
    return stream_id(request.query_params.get("owner", ""), request.path_params[parameter])
