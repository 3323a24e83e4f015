"""KServe v2 without a wire: requests in, answers out, sequences between them. HTTP and gRPC call the same service.

Everything runs on the event loop; what may wait for the disk (a sequence that comes back from a snapshot, the end of
one) runs in a thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.refusals import BadInput, Refused
from streamer.serve.kserve import describe, statistics
from streamer.serve.kserve.caller import SECRET_HEADER, Caller, connected
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.lasting import Positions, lasting_secret
from streamer.serve.kserve.messages import InferAnswer, InferRequest, SequenceFlags
from streamer.serve.kserve.running import Running, joined
from streamer.serve.kserve.sequences import AmbiguousError, Owned, SequenceTable
from streamer.serve.kserve.shapes import RequestReader
from streamer.serve.kserve.tensors import NamedTensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamer.metrics import Metrics
    from streamer.settings import Settings
    from streamer.streams.registry import Registry
    from streamer.streams.session import Session

__all__ = ["InferenceService"]

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]
#: HTTP's status for each reason that the registry has for refusing a stream.
STATUS = {"unknown_model": 404, "options": 400, "rate": 400, "conditions": 400}


class InferenceService:
    """``put``: from a lane to the event loop, in order. ``closed()``: why nothing new is welcome, or ``None``."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        metrics: Metrics,
        put: Callable[[Callable[[], None]], None],
        closed: Callable[[], tuple[str, str] | None],
    ) -> None:
        self.settings = settings
        self._registry, self._metrics, self._put, self._closed = registry, metrics, put, closed
        self._table: SequenceTable[Running] = SequenceTable(lasting_secret(settings.state_directory / "kserve.secret"))
        self._positions = Positions(settings.state_directory / "kserve.json")
        self._readers: dict[str, RequestReader] = {}
        self._requests: dict[str, statistics.Requests] = {}
        self._under_way = 0
        self._streams: set[int] = set()
        self._stream_number = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._backlog = 0
        self._freed = asyncio.Event()  # a slot, perhaps

    # -- what is served ----------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Why not, or ``None``."""
        closed = self._closed()
        return ": ".join(closed) if closed else None

    def manifest(self, model: str, version: str = "") -> Manifest:
        """Raises :class:`KServeError`: 404."""
        try:
            manifest = self._registry.engine(model).manifest
        except Refused:
            raise KServeError(404, f"Request for unknown model: '{model[:100]}' is not found") from None
        if version not in ("", manifest.version):
            text = f"Request for unknown model: '{model}' version {version[:40]} is not found: {manifest.version} is"
            raise KServeError(404, text)
        return manifest

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        manifest = self.manifest(model, version)
        return describe.config(manifest, self.settings.capacity, self.settings.idle_seconds)

    async def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Of one model, or of all."""
        names = [model] if model else [found["name"] for found in self._registry.models()]
        found = []
        for name in names:
            manifest = self.manifest(name, version)
            sample = partial(self._sample, name)
            requests = self._requests.get(name) or statistics.Requests()
            # reading the metrics asks every session: not for the event loop
            found.append(await asyncio.to_thread(statistics.document, name, manifest.version, requests, sample))
        return {"model_stats": found}

    def index(self) -> list[dict[str, Any]]:
        return [
            {"name": found["name"], "version": found["version"], "state": "READY"} for found in self._registry.models()
        ]

    # -- gRPC's streams ----------------------------------------------------------------------------------------------

    @contextmanager
    def stream(self) -> Iterator[int]:
        """A number for one ``ModelStreamInfer``: what it starts is its own as long as it lasts."""
        self._stream_number += 1
        number = self._stream_number
        self._streams.add(number)
        try:
            yield number
        finally:
            self._streams.discard(number)

    # -- inference ---------------------------------------------------------------------------------------------------

    async def infer(self, model: str, version: str, request: InferRequest, caller: Caller) -> InferAnswer:
        """Raises :class:`KServeError`."""
        manifest = self.manifest(model, version)
        requests = self._requests.setdefault(model, statistics.Requests())
        begin, good = perf_counter_ns(), False
        if self._under_way >= self.settings.kserve_max_requests:
            requests.count(False, 0)
            most = self.settings.kserve_max_requests
            raise KServeError(503, f"{most} requests are under way (kserve_max_requests): nothing was taken", 1.0)
        self._under_way += 1
        try:
            answer = await self._infer(manifest, request, caller)
            good = True
            return answer
        except BadInput as error:
            raise KServeError(400, str(error)) from None
        except Refused as error:
            raise KServeError(STATUS.get(error.reason, 503), error.message, error.retry_after) from None
        finally:
            self._under_way -= 1
            requests.count(good, perf_counter_ns() - begin)

    async def _infer(self, manifest: Manifest, request: InferRequest, caller: Caller) -> InferAnswer:
        reader = self._readers.get(manifest.name)
        if reader is None or reader.manifest is not manifest:
            reader = self._readers[manifest.name] = RequestReader(manifest)
        rows, conditions = reader.rows(request)
        wanted = reader.outputs(request)
        if closed := self._closed():
            raise KServeError(503, f"{': '.join(closed)}: nothing was taken", 1.0)
        taken: list[int] = []  # the row before the request's first, once its rows are taken
        try:
            async with asyncio.timeout(request.timeout):
                if request.sequence is None:
                    parts = await self._one_off(manifest, rows, conditions, request.timeout is not None)
                else:
                    parts = await self._step(manifest, request, rows, conditions, caller, taken)
        except TimeoutError:
            said = f"its rows were taken, behind row {taken[0]}" if taken else "nothing of it was taken"
            raise KServeError(503, f"the request's timeout of {request.timeout:g} s has passed: {said}", 1.0) from None
        outputs = (NamedTensor(o.name, joined(parts, o.name, o.dtype, o.shape)) for o in wanted)
        position = {"sequence_position": taken[0] + len(rows)} if taken else {}
        return InferAnswer(manifest.name, manifest.version, request.id, tuple(outputs), position)

    async def _one_off(self, manifest: Manifest, rows: NDArray[Any], conditions: Arrays, patient: bool) -> list[Arrays]:
        """From zero state, which is dropped afterwards."""
        running = Running(self._put)
        running.session = await self._open(manifest, None, conditions, running, patient)
        try:
            return await running.run(rows)
        finally:
            running.close(KServeError(503, "the request is over"))
            self._registry.release(running.session)
            self._freed.set()

    async def _step(
        self,
        manifest: Manifest,
        request: InferRequest,
        rows: NDArray[Any],
        conditions: Arrays,
        caller: Caller,
        taken: list[int],
    ) -> list[Arrays]:
        """The next rows of a sequence."""
        flags = request.sequence
        assert flags is not None
        owned = await self._find(manifest, flags, conditions, caller, request.timeout is not None)
        running = owned.sequence
        assert running is not None

        def turn() -> None:
            _check_position(flags, running)
            taken.append(running.position)

        try:
            return await running.run(rows, turn)
        finally:
            if flags.end and taken:
                self._end(owned)

    # -- sequences ---------------------------------------------------------------------------------------------------

    async def _find(
        self, manifest: Manifest, flags: SequenceFlags, conditions: Arrays, caller: Caller, patient: bool
    ) -> Owned[Running]:
        """The caller's sequence, new if the request starts it. Raises :class:`KServeError`."""
        model, id = manifest.name, flags.id
        owned = self._table.own(model, id, caller)
        if flags.start:
            if owned is not None:
                log.info("a sequence starts again before its end", extra={"model": model})
                self._end(owned, KServeError(400, f"sequence {_shown(id)} was started again"))
            owned = self._table.enter(model, id, caller)
            running = Running(self._put, partial(self._lost, owned))
            try:
                running.session = await self._open(manifest, owned.key, conditions, running, patient)
            except BaseException:
                self._table.remove(owned)
                self._table.free(owned.key)
                raise
            owned.sequence = running
            return owned
        if owned is None:
            owned = await self._left(manifest, flags, caller)
        if owned.sequence is None:
            self._table.remove(owned)
            raise KServeError(400, f"sequence {_shown(id)} is over: {owned.gone}; {_must_start(model, id)}")
        return owned

    async def _left(self, manifest: Manifest, flags: SequenceFlags, caller: Caller) -> Owned[Running]:
        """A sequence that a broken connection left, or a restart of the daemon."""
        model, id = manifest.name, flags.id
        others = self._table.others(model, id, caller)
        if others:
            asked = {o.caller for o in others if o.caller.stream not in self._streams}
            alive = await asyncio.to_thread(connected, [c for c in asked if not c.stream])
            try:
                owned = self._table.take_over(model, id, caller, asked - alive)
            except AmbiguousError:
                text = (
                    f"several sequences {_shown(id)} of your address lost their connections: {_must_start(model, id)}"
                )
                raise KServeError(400, text) from None
        else:
            owned = await self._wake(manifest, flags, caller)
        if owned is None:
            raise KServeError(400, _must_start(model, id))
        return owned

    async def _wake(self, manifest: Manifest, flags: SequenceFlags, caller: Caller) -> Owned[Running] | None:
        """From a snapshot: ``None`` if there is none."""
        model, id = manifest.name, flags.id
        key = self._table.key(model, id, caller)
        owned = self._table.enter(model, id, caller, key)
        running = Running(self._put, partial(self._lost, owned))
        try:
            running.session, answered = await asyncio.to_thread(self._attach, key, running)
        except Refused as error:
            self._table.remove(owned)
            self._table.free(key)
            if error.reason == "unknown_stream":
                return None
            raise
        owned.sequence = running
        running.answered = running.position
        # The daemon may have died: answers went out for rows that no snapshot has.
        running.doubtful = answered != running.position
        return owned

    def _attach(self, key: str, running: Running) -> tuple[Session, int | None]:
        """In a thread."""
        session = self._registry.attach(key, running.sink, after_seq=None)
        session.keep_no_events()
        return session, self._positions.take(key)

    async def _open(
        self, manifest: Manifest, key: str | None, conditions: Arrays, running: Running, patient: bool
    ) -> Session:
        """``patient``: the request has a timeout and waits for a slot, if not too many do."""
        while True:
            try:
                session = self._registry.open(
                    model=manifest.name,
                    sink=running.sink,
                    stream=key,
                    options={"tensors": True},
                    conditions=conditions,
                    lasting=key is not None,
                )
                session.keep_no_events()
                return session
            except Refused as error:
                if error.reason != "capacity" or not patient or self._backlog >= self.settings.kserve_max_backlog:
                    raise
            self._backlog += 1
            try:
                self._freed.clear()
                await self._freed.wait()
            finally:
                self._backlog -= 1

    def _end(self, owned: Owned[Running], error: KServeError | None = None) -> None:
        """Its id is free at once; its slot too, and what is on the disk goes in a thread."""
        running = owned.sequence
        self._table.remove(owned)
        if running is None or running.session is None:
            self._table.free(owned.key)
            return
        owned.sequence = None
        running.close(error or KServeError(400, f"sequence {_shown(owned.id)} has ended"))
        self._later(self._discard(running, owned.key))

    async def _discard(self, running: Running, key: str) -> None:
        try:
            await asyncio.to_thread(self._registry.discard, running.session)
        finally:
            self._table.free(key)
            self._freed.set()

    def _lost(self, owned: Owned[Running], code: str, message: str) -> None:
        """The daemon gave the sequence up."""
        if owned.sequence is None:
            return
        running = owned.sequence
        why = f"it was evicted, {message}" if code == "idle_timeout" else message
        self._table.lose(owned, why)
        self._later(self._discard(running, owned.key))

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the end -----------------------------------------------------------------------------------------------------

    def save_positions(self) -> None:
        """After the registry has drained: which rows were answered of which sequence. Writes a file."""
        self._positions.save({o.key: o.sequence.answered for o in self._table.all() if o.sequence is not None})

    def _sample(self, model: str, name: str) -> float | None:
        return self._metrics.registry.get_sample_value(name, {"model": model})


def _check_position(flags: SequenceFlags, running: Running) -> None:
    at, who = running.position, f"sequence {_shown(flags.id)}"
    if flags.position is not None and flags.position != at:
        raise KServeError(409, f"{who} is at row {at}, not at {flags.position}: nothing was taken")
    if running.doubtful and flags.position is None:
        text = (
            f"{who} came back from a snapshot at row {at}, and what was answered behind it is lost: send it again"
            f" from there with the parameter sequence_position = {at}, or start the sequence again"
        )
        raise KServeError(409, text)
    running.doubtful = False


def _must_start(model: str, id: int | str) -> str:
    return (
        f"inference request for sequence {_shown(id)} to model '{model}' must specify the START flag on the first"
        f" request of the sequence (a sequence belongs to the connection that started it, or with the header"
        f" {SECRET_HEADER} to whoever sends the same secret)"
    )


def _shown(id: int | str) -> str:
    return repr(id[:60]) if isinstance(id, str) else str(id)
