"""The engine of one model: lanes (threads) that run whatever is ready, in batches, and never wait for company.

The path of a chunk: :meth:`Engine.ready` queues its stream; a lane takes a batch, copies chunks and states into
arrays of a fixed size, runs the model, puts the states back, lets the task decode all rows at once and gives every
client its events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model
from streamer.engine.scheduler import Place, Scheduler
from streamer.metrics import ModelMetrics
from streamer.tasks import Event, Task

__all__ = ["Client", "Engine", "Stream", "rungs"]

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

#: What a lane does in Python and NumPy, it does alone. The interpreter runs one thread at a time anyhow, and two that
#: both want it hand it over at every larger NumPy call, which costs up to half as much again.
_alone = threading.Lock()


class Client(Protocol):
    """What the engine asks of a session. Called from lanes only, never two calls at a time for one stream."""

    memory: Any  # the task's

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        """Copy the next chunk into ``rows``, by input; how many of its steps are real. -1: nothing now,
        :meth:`Engine.ready` will tell.
        """

    def deliver(self, events: Sequence[Event]) -> bool:
        """What the chunk gave. True when there is another chunk to run. Does not raise."""

    def fail(self, message: str) -> None:
        """The chunk is lost, and the stream's state with it. Does not raise."""

    def released(self) -> None:
        """The slot is free, where :meth:`Engine.close_stream` could not free it at once. Does not raise."""


class Stream:
    """A client's place in the engine."""

    __slots__ = ("client", "closing", "generation", "place", "since", "slot")

    def __init__(self, client: Client, slot: int, generation: int) -> None:
        self.client, self.slot, self.generation = client, slot, generation
        self.place, self.since, self.closing = Place.IDLE, 0.0, False


def rungs(limit: int) -> list[int]:
    """Batch sizes that are run, ascending: powers of two up to ``limit``, and ``limit`` itself. Others are padded
    up.
    """
    return sorted({limit, *(2**i for i in range(limit.bit_length()) if 2**i <= limit)})


class Engine:
    """``limit``: largest batch. ``max_state_bytes`` bounds all streams' states together (:class:`ArenaError` at
    once).
    """

    def __init__(
        self,
        model: Model,
        task: Task,
        metrics: ModelMetrics,
        *,
        lanes: int = 1,
        capacity: int = 256,
        limit: int = 64,
        max_state_bytes: int = 2**31,
    ) -> None:
        self.model, self.task, self.manifest, self.metrics = model, task, model.manifest, metrics
        self.arena = Arena(self.manifest.states, capacity, max_state_bytes)
        self.limit = min(limit, self.manifest.max_batch, capacity)
        self._step_seconds = self.manifest.chunk_seconds / self.manifest.steps
        self._ladder = rungs(self.limit)
        self._scheduler: Scheduler[Stream] = Scheduler(self.limit, self._ladder)
        self._lanes = [threading.Thread(target=self._lane, name=f"lane-{i}", daemon=True) for i in range(lanes)]

    # -- streams -------------------------------------------------------------------------------------------------------

    def open(self, client: Client, conditions: Mapping[str, NDArray[Any]] | None = None) -> Stream | None:
        """A slot of zeros for the client; ``None`` when all are taken."""
        slot = self.arena.acquire()
        return None if slot is None else Stream(client, slot, self.arena.generations[slot])

    def ready(self, stream: Stream) -> None:
        """The client has a chunk. Never blocks; a closed stream is passed over."""
        self._scheduler.ready(stream)

    def close_stream(self, stream: Stream) -> bool:
        """Give the slot back: at once (True), or when the chunk in flight has come back, whose result then is late and
        dropped; :meth:`Client.released` tells.
        """
        if stream.generation == self.arena.generations[stream.slot]:
            self.arena.retire(stream.slot)
        if not self._scheduler.remove(stream):
            return False
        self.arena.release(stream.slot)
        return True

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def close(self, timeout: float | None = None) -> bool:
        """Lanes finish their batch and end; what is queued stays unrun. False if one did not come back in time."""
        self._scheduler.close()
        until = None if timeout is None else monotonic() + timeout
        for lane in self._lanes:
            if lane.is_alive():
                lane.join(None if until is None else max(0.0, until - monotonic()))
        return not any(lane.is_alive() for lane in self._lanes)

    def progress(self) -> int:
        """Batches that have come back, failed ones included."""
        return self._scheduler.batches

    def stuck(self, seconds: float) -> bool:
        """There was work for that long, and no batch has come back."""
        return self._scheduler.stalled() > seconds

    def waited(self) -> float:
        """Seconds that the longest waiting chunk has been ready."""
        return self._scheduler.waited()

    # -- a lane --------------------------------------------------------------------------------------------------------

    def _lane(self) -> None:
        flush_denormals()
        buffers = {rung: self._feeds(rung) for rung in self._ladder}
        while batch := self._scheduler.take():
            taken: list[Stream] = []
            more: dict[Stream, bool] = {}
            try:
                self._step(batch, taken, more, buffers)
            except Exception as error:  # whatever it is, it is this batch's problem and not the next one's
                self._fail(taken, error)
            for closed in self._scheduler.done(batch, [more.get(stream, False) for stream in batch]):
                self.arena.release(closed.slot)
                closed.client.released()

    def _step(
        self, batch: list[Stream], taken: list[Stream], more: dict[Stream, bool], buffers: dict[int, Arrays]
    ) -> None:
        begin = perf_counter()
        with _alone:
            feeds = buffers[next(rung for rung in self._ladder if rung >= len(batch))]
            steps = self._gather(batch, taken, feeds)
        if not taken:
            return
        start = perf_counter()
        try:
            outputs = self.model.run(feeds)
        except Exception as error:
            outputs = self._run_apart(feeds, taken, steps, error)
            if not taken:
                return
        ran = perf_counter()
        with _alone:
            self._give(taken, steps, outputs, more, (begin, start, ran))

    def _gather(self, batch: list[Stream], taken: list[Stream], feeds: Arrays) -> list[int]:
        """Chunks and states of those that have a chunk, ``taken``, to the first rows, then zeros. Their steps."""
        chunks = feeds[self.manifest.input.name]
        steps: list[int] = []
        for stream in batch:
            real = stream.client.take({self.manifest.input.name: chunks[len(taken)]})
            if real >= 0:
                taken.append(stream)
                steps.append(real)
        self.arena.gather(_slots(taken), feeds)
        if len(taken) < len(chunks):
            for array in feeds.values():
                array[len(taken) :] = 0
        return steps

    def _give(
        self,
        taken: list[Stream],
        steps: list[int],
        outputs: Arrays,
        more: dict[Stream, bool],
        times: tuple[float, float, float],
    ) -> None:
        """States back to their slots, outputs by the task to the clients; ``times``: begin, run from, run to."""
        begin, start, ran = times
        self.arena.scatter(_slots(taken), outputs)
        results = {o.name: outputs[o.name][: len(taken)] for o in self.manifest.outputs}
        decode = perf_counter()
        events = self.task.step([stream.client.memory for stream in taken], results, steps)
        decoded = perf_counter()
        late = 0
        for stream, given in zip(taken, events, strict=True):
            if stream.generation == self.arena.generations[stream.slot]:
                more[stream] = stream.client.deliver(given)
            else:
                late += 1
        total = sum(steps)
        audio = total * self._step_seconds
        self.metrics.batch(len(taken), total, ran - start, decoded - decode, perf_counter() - begin, audio, late)

    def _run_apart(self, feeds: Arrays, taken: list[Stream], steps: list[int], error: Exception) -> Arrays:
        """The batch failed, so every row runs alone: nobody pays for a neighbour. Takes the failing ones out of the
        lists.
        """
        parts: list[Arrays] = []
        failed: list[Stream] = []
        for row, stream in enumerate(taken):
            try:
                parts.append(self.model.run({name: array[row : row + 1] for name, array in feeds.items()}))
            except Exception as own:
                failed.append(stream)
                error = own
        for stream in failed:
            row = taken.index(stream)
            del taken[row], steps[row]
        self._fail(failed, error)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}

    def _fail(self, streams: Sequence[Stream], error: Exception) -> None:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
        log.error("a batch failed", extra={"model": self.manifest.name, "streams": len(streams), "error": message})
        log.debug("the failure in full", exc_info=error)
        self.metrics.failed_batches.inc()
        for stream in streams:
            if not stream.closing:
                stream.client.fail(message)

    def _feeds(self, rung: int) -> Arrays:
        spec = self.manifest.input
        return {spec.name: np.zeros((rung, *spec.chunk_shape), spec.dtype), **self.model.zero_state(rung)}


def _slots(streams: Sequence[Stream]) -> NDArray[np.intp]:
    return np.array([stream.slot for stream in streams], np.intp)
