"""The KServe v2 service behind both HTTP and gRPC: requests in, responses out, with sequences.

Runs on the event loop; disk access runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.names import name_of
from streamer.refusals import Refused
from streamer.serve.kserve import describe, statistics
from streamer.serve.kserve.caller import Caller
from streamer.serve.kserve.errors import KServeError
from streamer.serve.kserve.lasting import MAX_SECRETS, SECRET_BYTES
from streamer.serve.kserve.messages import InferAnswer, InferRequest
from streamer.serve.kserve.opening import Sequences, check_position
from streamer.serve.kserve.session_requests import SessionRequests, joined
from streamer.serve.kserve.shapes import RequestReader
from streamer.serve.kserve.slots import Slots
from streamer.serve.kserve.tensors import NamedTensor
from streamer.streams.snapshot import Snapshot

if TYPE_CHECKING:
    from streamer.settings import Settings
    from streamer.streams.registry import Registry

__all__ = ["InferenceService"]

Arrays = dict[str, NDArray[Any]]
#: The prefix of sequences' ids, and the headers that accompany a sequence to another daemon.
PREFIX, SECRETS_HEADER, ANSWERED_HEADER = "kserve/", "sequence-secrets", "sequence-answered"
#: HTTP status for each of the registry's reasons to refuse a stream.
STATUS = {"unknown_model": 404, "options": 400, "rate": 400, "conditions": 400, "quota": 429}


class InferenceService:
    """``put``: passes calls from a lane to the event loop, in order. ``closed()``: why new requests are refused, or
    ``None``."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        put: Callable[[Callable[[], None]], None],
        closed: Callable[[], tuple[str, str] | None],
    ) -> None:
        self.settings = settings
        self._registry, self._closed = registry, closed
        self._slots = Slots(registry, put, settings.kserve_max_backlog)
        by_address = settings.kserve_resume_by_address
        self._sequences = Sequences(self._slots, settings.state_directory, by_address=by_address)
        self._readers: dict[str, RequestReader] = {}
        self._requests: dict[str, statistics.Requests] = {}
        self._under_way = 0

    # -- what is served ----------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Why a model is not ready, or ``None``."""
        closed = self._closed()
        return ": ".join(closed) if closed else None

    def manifest(self, model: str, version: str = "") -> Manifest:
        """A model's manifest. Raises :class:`KServeError` 404."""
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

    def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Statistics of one model, or of all."""
        names = [model] if model else [found["name"] for found in self._registry.models()]
        found = []
        for name in names:
            manifest = self.manifest(name, version)
            requests = self._requests.get(name) or statistics.Requests()
            engine = self._registry.engine(name)
            found.append(statistics.document(name, manifest.version, requests, engine.metrics))
        return {"model_stats": found}

    def index(self) -> list[dict[str, Any]]:
        return [
            {"name": found["name"], "version": found["version"], "state": "READY"} for found in self._registry.models()
        ]

    def stream(self) -> AbstractContextManager[int]:
        """A number for one ``ModelStreamInfer`` call, which owns the sequences that it starts as long as it lasts."""
        return self._sequences.stream()

    # -- inference ---------------------------------------------------------------------------------------------------

    async def infer(self, model: str, version: str, request: InferRequest, caller: Caller) -> InferAnswer:
        """Answer a request. Raises :class:`KServeError`."""
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
        except Refused as error:
            if error.url is not None:
                text = f"the sequence, or any new one, goes on at {error.url}: connect there; nothing was taken"
                raise KServeError(503, text, 1.0) from None
            again = 1.0 if error.retry_after is None and error.reason not in STATUS else error.retry_after
            raise KServeError(STATUS.get(error.reason, 503), error.message, again) from None  # nothing was taken
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
            async with asyncio.timeout(request.timeout) as waiting:

                def take(position: int) -> None:
                    """From here on the request is run to its end: unanswered rows would be sent again and run twice."""
                    taken.append(position)
                    waiting.reschedule(None)

                if request.sequence is None:
                    parts = await self._one_off(manifest, request, rows, conditions, caller, take)
                else:
                    parts = await self._step(manifest, request, rows, conditions, caller, take)
        except TimeoutError:
            text = f"the request's timeout of {request.timeout:g} s has passed: nothing of it was taken"
            raise KServeError(503, text, 1.0) from None
        outputs = (NamedTensor(o.name, joined(parts, o.name, o.dtype, o.shape)) for o in wanted)
        position = {} if request.sequence is None else {"sequence_position": taken[0] + len(rows)}
        return InferAnswer(manifest.name, manifest.version, request.id, tuple(outputs), position)

    async def _one_off(
        self,
        manifest: Manifest,
        request: InferRequest,
        rows: NDArray[Any],
        conditions: Arrays,
        caller: Caller,
        take: Callable[[int], None],
    ) -> list[Arrays]:
        """Run a request without a sequence from zero state, and drop the state afterwards."""
        patient = request.timeout is not None
        running = SessionRequests(
            self._slots.put,
            lambda mine: self._slots.open(manifest.name, None, conditions, mine.sink, patient, caller.owner),
        )
        try:
            return await running.run(rows, take)
        finally:
            running.close(KServeError(503, "the request is over"))
            if running.session is not None:
                self._slots.release(running.session)

    async def _step(
        self,
        manifest: Manifest,
        request: InferRequest,
        rows: NDArray[Any],
        conditions: Arrays,
        caller: Caller,
        take: Callable[[int], None],
    ) -> list[Arrays]:
        """The next rows of a sequence."""
        flags = request.sequence
        assert flags is not None
        owned = await self._sequences.find(manifest.name, flags, conditions, caller, request.timeout is not None)
        running = owned.sequence
        assert running is not None

        ending = False

        def turn(position: int) -> None:
            nonlocal ending
            check_position(flags, running, position)
            take(position)
            ending = flags.end

        try:
            return await running.run(rows, turn)
        finally:
            if ending:
                self._sequences.end(owned)

    # -- the end -----------------------------------------------------------------------------------------------------

    def parting(self, id: str, data: bytes) -> dict[str, str]:
        """Headers that accompany a stream's bytes to another daemon, so that its client finds it there; none if the
        stream is not a sequence. From any thread."""
        if not name_of(id).startswith(PREFIX):
            return {}
        saved = Snapshot.from_bytes(data)
        certain = not len(saved.pending) and self._sequences.certain(id, saved.received)
        secrets = ",".join(secret.hex() for secret in self._sequences.secrets)
        return {SECRETS_HEADER: secrets, ANSWERED_HEADER: str(saved.received) if certain else "unknown"}

    def arrived(self, id: str, headers: Mapping[str, str]) -> None:
        """Take the headers of :meth:`parting` from the other daemon, once the bytes are on the disk. Raises
        ``ValueError``. Waits for the disk."""
        if (header := headers.get(SECRETS_HEADER)) is None or not name_of(id).startswith(PREFIX):
            return
        secrets = [bytes.fromhex(each) for each in header.split(",")[: 1 + MAX_SECRETS]]
        if any(len(secret) != SECRET_BYTES for secret in secrets):
            raise ValueError(f"header {SECRETS_HEADER}: secrets of {SECRET_BYTES} bytes are expected")
        rows = headers.get(ANSWERED_HEADER, "")
        self._sequences.arrived(id, int(rows) if rows.isdecimal() else None, secrets)

    async def save_positions(self) -> None:
        """Save the answered positions after the registry has drained, so that sequences survive a restart. Waits for
        the disk."""
        await self._sequences.save_positions()
