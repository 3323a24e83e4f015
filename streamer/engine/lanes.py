"""A lane: a thread that takes whoever is ready, as one batch, and gives every client its events.

take, run, decode, deliver: a step on one screen. What one client, one row of the run or one row of the task's step does
wrong is its own: its client hears :meth:`Client.fail`, the others go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena, Slot
from streamer.engine.batch import BatchResult, BatchRunner, error_line
from streamer.engine.decoding import Decoded, decode
from streamer.engine.denormals import flush_denormals
from streamer.engine.load import Load
from streamer.engine.model import Model
from streamer.engine.scheduler import Place, Scheduler
from streamer.metrics import ModelMetrics
from streamer.tasks import Event, Task

__all__ = ["Client", "EngineStream", "Lane"]

log = logging.getLogger(__name__)


class Client(Protocol):
    """What the engine asks of a session. Called from lanes only, never two calls at a time for one stream."""

    memory: Any  # the task's

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        """Copy the next chunk into ``rows``, by stream input; how many of its steps are real. -1: nothing now,
        :meth:`Engine.ready` is called when there is.
        """

    def deliver(self, events: Sequence[Event]) -> bool:
        """What the chunk gave. True when there is another chunk to run. Does not raise."""

    def fail(self, message: str) -> None:
        """The chunk is lost, and the stream's state with it. Does not raise."""

    def released(self) -> None:
        """The slot is free, where :meth:`Engine.close_stream` could not free it at once. Does not raise."""


class EngineStream:
    """A client's place in the engine. The client says when its next chunk is due (``deadline``, monotonic; 0: long ago)
    and whether somebody listens (``heard``), before it says that it is ready."""

    __slots__ = ("client", "closing", "deadline", "due", "heard", "place", "since", "slot")

    def __init__(self, client: Client, slot: Slot) -> None:
        self.client, self.slot = client, slot
        self.deadline, self.heard = 0.0, True
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False


class Lane(threading.Thread):
    """``limit``: streams in a batch.

    ``python``: held while the lane works in Python and NumPy, shared by the lanes of one engine and no other. The
    interpreter runs one thread at a time anyhow, and two that both want it hand it over at every larger NumPy call,
    which costs decoding up to half as much again. Never held during a run.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        task: Task,
        arena: Arena,
        scheduler: Scheduler[EngineStream],
        metrics: ModelMetrics,
        limit: int,
        python: threading.Lock,
        load: Load,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.task = task
        self._model, self._arena, self._scheduler, self._metrics = model, arena, scheduler, metrics
        self._limit, self._python, self._load = limit, python, load
        self._step_seconds = model.manifest.chunk_seconds / model.manifest.steps
        self._outputs = [output.name for output in model.manifest.outputs]

    def run(self) -> None:
        flush_denormals()
        runner = BatchRunner(self._model, self._arena, self._limit)
        while batch := self._scheduler.take():
            taken: list[EngineStream] = []
            more: set[EngineStream] = set()
            try:
                self._step(runner, batch, taken, more)
            except Exception as error:  # whatever it is, it is this batch's problem and not the next one's
                self._fail(dict.fromkeys(taken, error), error)
            for closed in self._scheduler.done(batch, [stream in more for stream in batch]):
                self._arena.release(closed.slot)
                closed.client.released()

    def _step(
        self, runner: BatchRunner, batch: list[EngineStream], taken: list[EngineStream], more: set[EngineStream]
    ) -> None:
        """``taken``: those that had a chunk. ``more``: those that have another one."""
        begin = perf_counter()
        with self._python:
            steps = self._take(runner.rows(len(batch)), batch, taken)
        if not taken:
            return
        indexes = np.array([stream.slot.index for stream in taken], np.intp)
        generations = np.array([stream.slot.generation for stream in taken], np.int64)
        result = runner.run_rows(len(batch), indexes, generations)
        with self._python:
            self._give(taken, steps, result, more, begin)

    def _give(
        self, taken: list[EngineStream], steps: list[int], result: BatchResult, more: set[EngineStream], begin: float
    ) -> None:
        """Outputs by the task to the clients."""
        if result.errors:
            errors = {taken[row]: error for row, error in result.errors.items()}
            self._fail(errors, next(iter(errors.values())))
        start = perf_counter()
        good, real, done = self._decode(taken, steps, result)
        decoded = perf_counter()
        if done.cause is not None:
            self._fail({good[row]: error for row, error in done.errors.items()}, done.cause)
        late = result.late
        for row, (stream, given) in enumerate(zip(good, done.events, strict=True)):
            if row in done.errors:
                continue
            if stream.closing:  # it left while the others were decoded
                late += 1
                continue
            try:
                if stream.client.deliver(given):
                    more.add(stream)
            except Exception as error:
                self._fail({stream: error}, error)
        total = sum(real)
        audio = total * self._step_seconds
        whole = perf_counter() - begin
        self._metrics.batch(len(taken), total, result.seconds, decoded - start, whole, audio, late)
        self._load.batch(len(taken), whole)

    def _take(
        self, rows: list[dict[str, NDArray[Any]]], batch: list[EngineStream], taken: list[EngineStream]
    ) -> list[int]:
        steps: list[int] = []
        for stream in batch:
            try:
                real = stream.client.take(rows[len(taken)])
            except Exception as error:
                self._fail({stream: error}, error)
                continue
            if real >= 0:
                taken.append(stream)
                steps.append(real)
        return steps

    def _decode(
        self, taken: list[EngineStream], steps: list[int], result: BatchResult
    ) -> tuple[list[EngineStream], list[int], Decoded]:
        """All good rows at once: whose they are, their steps, and what the task gave."""
        n = len(taken)
        outputs = {name: result.outputs[name][:n] for name in self._outputs}
        if result.late or result.errors:
            rows = np.flatnonzero(result.good).tolist()
            taken, steps = [taken[row] for row in rows], [steps[row] for row in rows]
            outputs = {name: array[rows] for name, array in outputs.items()}
        if not taken:
            return [], [], Decoded([], [], {})
        done = decode(self.task, [stream.client.memory for stream in taken], outputs, steps)
        if done.cause is not None:
            for stream, memory in zip(taken, done.memories, strict=True):
                stream.client.memory = memory
        return taken, steps, done

    def _fail(self, errors: Mapping[EngineStream, Exception], cause: Exception) -> None:
        """``errors``: whose chunk is lost, and why. ``cause``: one for the log, which may be nobody's."""
        what = {"model": self._model.manifest.name, "streams": len(errors), "error": error_line(cause)}
        log.error("a batch failed", extra=what)
        log.debug("the failure in full", exc_info=cause)
        self._metrics.failed_batches.inc()
        for stream, error in errors.items():
            if not stream.closing:
                stream.client.fail(error_line(error))
