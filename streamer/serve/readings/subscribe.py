"""``/v1/sensors``: readings in, one JSON object a line, and forecasts out to subscribers.

    -> {"id": "pump1", "time": 1630424257, "temperature": 73.9}
    <- {"type": "taken", "readings": 1, "refused": 0}
    -> {"type": "subscribe", "streams": ["pump*"]}
    <- {"type": "subscribed", "streams": ["pump*"]}
    <- {"type": "forecast", "model": "forecast-online", "stream": "pump1.temperature", "time": 1630424257, ...}

If readings can't be taken now, their connection is not read until they can: the client waits, and nothing is lost. A
client that does not read its forecasts loses the oldest, which are counted.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from streamer.faults import faults
from streamer.names import name_of, owner_of
from streamer.sensors.columns import ReadingBatch, StepResult
from streamer.sensors.owners import owned_by
from streamer.sensors.writes import BusyError
from streamer.serve.body import in_thread
from streamer.serve.outbox import Outbox
from streamer.serve.readings.parsed import expected, fleet_of, read_batch
from streamer.serve.readings.remedies import without
from streamer.serve.readings.results import ResultQueue
from streamer.serve.stream.protocol import WireError, encode
from streamer.sources import SourceError
from streamer.sources.readings import Columns, Readings
from streamer.store import StoreError

if TYPE_CHECKING:
    from streamer.sensors.commit import Receipt
    from streamer.sensors.host import Sensors
    from streamer.sensors.ingest import Fleet
    from streamer.serve.access.tokens import AccessScope
    from streamer.serve.websocket import Socket

__all__ = ["PATH", "Subscriber", "Subscribers"]

log = logging.getLogger(__name__)

PATH = "/v1/sensors"
#: Most queued messages of one connection; at this number it is not read.
AHEAD = 16
#: Size of the cache of subscribers by stream name.
REMEMBERED = 100_000


class Subscribe(BaseModel):
    """Patterns of names (``*``, ``?``), which replace earlier ones. An empty list unsubscribes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Literal["subscribe"]
    streams: list[Annotated[str, Field(min_length=1, max_length=1000)]]


class Subscribers:
    """All connections to ``/v1/sensors``. Runs on the event loop, except :meth:`watch` and :meth:`_drop`."""

    def __init__(self, sensors: Sensors, outbox: Outbox) -> None:
        self.sensors, self.settings, self.metrics = sensors, sensors.settings, sensors.metrics
        self.connections: set[Subscriber] = set()
        self._results = ResultQueue(outbox.put, self._fan, self._drop)
        self._wanted: dict[str, list[Subscriber]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.any = False
        self.metrics.subscriptions.set_function(lambda: len(self.connections))

    def admit(self) -> Callable[[Socket], Subscriber] | tuple[int, str]:
        if not self.sensors.fleets:
            return 503, "no sensors are served here, or not yet\n"
        if len(self.connections) >= self.settings.max_connections:
            return 503, f"all {self.settings.max_connections} connections are taken (max_connections)\n"
        return lambda socket: Subscriber(socket, self)

    def watch(self, fleet: Fleet, result: StepResult) -> None:
        """Called by lanes."""
        if self.any:
            self._results.put(fleet, result)

    def changed(self) -> None:
        self._wanted.clear()
        self.any = any(connection.patterns for connection in self.connections)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for connection in list(self.connections):
            connection.socket.close(1012, "the daemon restarts")

    def _fan(self, fleet: Fleet, result: StepResult) -> None:
        forecasts, model = self.sensors.current(fleet, result), fleet.model.manifest.name
        for row, name in enumerate(forecasts.names):
            if connections := self._who(name):
                frame = encode({"type": "forecast", "model": model, **forecasts.to_dict(row)})
                for connection in connections:
                    connection.send(frame)

    def _drop(self, fleet: Fleet, result: StepResult) -> None:
        """Called by lanes for results that were dropped because the event loop was behind."""
        connections = list(self.connections)
        for name in result.names.tolist():
            found = self._wanted.get(name)
            count = sum(c.wants(name) for c in connections) if found is None else len(found)
            self.metrics.dropped_forecasts.labels("websocket").inc(count)

    def _who(self, name: str) -> list[Subscriber]:
        found = self._wanted.get(name)
        if found is None:
            if len(self._wanted) >= REMEMBERED:
                self._wanted.clear()
            found = self._wanted[name] = [c for c in self.connections if c.wants(name)]
        return found


class Subscriber:
    """The peer of one socket."""

    def __init__(self, socket: Socket, shared: Subscribers) -> None:
        self.socket, self._shared = socket, shared
        self.patterns: list[str] = []
        self._unread: deque[tuple[bytes, bool]] = deque()
        self._busy = False
        self._unsent: deque[bytes] = deque(maxlen=shared.settings.max_unsent_events)
        shared.connections.add(self)

    def wants(self, name: str) -> bool:
        own = name_of(name)
        return owner_of(name) == self.socket.grant.owner and any(
            fnmatch.fnmatchcase(own, pattern) for pattern in self.patterns
        )

    def send(self, frame: bytes) -> None:
        if self.socket.writable and not self._unsent:
            self.socket.send([frame])
            return
        if len(self._unsent) == self._unsent.maxlen:
            self._shared.metrics.dropped_forecasts.labels("websocket").inc()
        self._unsent.append(frame)

    # -- from the socket -----------------------------------------------------------------------------------------------

    def on_message(self, data: bytes, text: bool) -> None:
        self._unread.append((data, text))
        if len(self._unread) >= AHEAD:
            self.socket.pause()
        if not self._busy:
            self._busy = True
            self._shared.spawn(self._work())

    def on_writable(self) -> None:
        frames = list(self._unsent)
        self._unsent.clear()
        self.socket.send(frames)

    def on_stalled(self) -> None:
        seconds = self._shared.settings.send_seconds
        self.socket.close(4408, f"nothing was read for {seconds:g} s (send_seconds)")

    def on_closed(self, code: int) -> None:
        self._shared.metrics.closes.labels(str(code)).inc()
        self._shared.connections.discard(self)
        self._shared.changed()
        self._unread.clear()

    # -- one message after another -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        try:
            while self._unread and not self.socket.closing:
                data, text = self._unread.popleft()
                await self._act(data, text)
                if len(self._unread) < AHEAD // 2:
                    self.socket.resume()
        except WireError as error:
            self._shared.metrics.bad_input.labels(error.code).inc()
            self.send(encode(error.to_dict()))
            self.socket.close(error.close_code, error.message)
        except Exception:
            log.exception("a connection of sensors failed")
            self.socket.close(1011, "this connection failed inside the daemon, its log says why")
        finally:
            self._busy = False

    async def _act(self, data: bytes, text: bool) -> None:
        if not text:
            raise WireError("bad_frame", "readings are JSON in text frames, one object a line")
        if (wanted := _control(data)) is not None:
            self._needs("read")
            most = self._shared.settings.max_subscriptions
            if len(wanted.streams) > most:
                raise WireError("bad_frame", f"{len(wanted.streams)} patterns, {most} are allowed (max_subscriptions)")
            self.patterns = list(wanted.streams)
            self._shared.changed()
            self.send(encode({"type": "subscribed", "streams": self.patterns}))
            return
        self._needs("write")
        try:
            source, fleet, batch, faults = await in_thread(lambda: self._parse(data), len(data))
            batch = owned_by(self.socket.grant.owner, batch)
        except SourceError as error:
            raise WireError("bad_json", without(str(error))) from None
        except LookupError as error:
            raise WireError("bad_frame", str(error)) from None
        lost = source.bad + source.cells
        self._shared.metrics.refused_readings.labels("malformed").inc(lost)
        faults = [without(fault) for fault in faults if fault not in source.report.notes]
        if not len(batch) and not lost:
            raise WireError("bad_frame", expected(source))
        receipt = await self._take(batch, fleet)
        if receipt is None:
            return
        answer: dict[str, Any] = {"type": "taken", "readings": receipt.taken, "refused": receipt.refused + lost}
        faults += [refusal.text(self._shared.settings.max_sensors) for refusal in receipt.refusals]
        if not len(batch):
            faults.append(expected(source))
        left = list(map(without, source.left_out() + source.report.notes))
        answer |= ({"left_out": left} if left else {}) | ({"errors": faults} if faults else {})
        self.send(encode(answer))

    def _needs(self, scope: AccessScope) -> None:
        """Check the scope of one frame. Raises :class:`WireError`. A connection serves readings and forecasts, but a
        token mostly has one of the scopes."""
        if not self.socket.grant.may(scope):
            raise WireError("scope", f"this token may not do that: it needs the scope {scope}")

    def _parse(self, data: bytes) -> tuple[Readings, Fleet, ReadingBatch, list[str]]:
        """Parse readings; in a thread, if they are many."""
        faults: list[str] = []
        source = Readings(
            "message", Columns(only_missing=True, missing=self._shared.settings.missing), faults.append, data
        )
        fleet = fleet_of(source, self._shared.sensors, None)
        return source, fleet, read_batch(source, fleet.layout, fleet.model.manifest.name), faults

    async def _take(self, batch: ReadingBatch, fleet: Fleet) -> Receipt | None:
        """Take readings; waits for room, and for the disk. ``None`` if the client disconnected before."""
        while not self.socket.closing:
            try:
                return await self._shared.sensors.take(batch, "websocket", fleet)
            except BusyError as error:
                await asyncio.sleep(error.retry_after)
            except StoreError:
                await asyncio.sleep(5.0)
        return None


def _control(data: bytes) -> Subscribe | None:
    """The control message; ``None`` for readings."""
    if b'"type"' not in data or b"\n" in data.strip():
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None  # the parser refuses it, as an invalid reading
    if not isinstance(found, dict) or found.get("type") != "subscribe":
        return None
    try:
        return Subscribe.model_validate(found)
    except ValidationError as error:
        raise WireError("bad_frame", f"the frame can't be used: {faults(error, Subscribe, 'frame')}") from None
