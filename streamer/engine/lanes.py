"""A lane: a thread that takes the ready streams as one batch, runs it, and delivers every client's events.

A step is take, run, decode, deliver. An error of one client, one row of the run or one row of the task's step fails
only that client (:meth:`Client.fail`); the others go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter
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
from streamer.tracing import Attribute, Span, tracer

__all__ = ["Client", "EngineStream", "Lane"]

log = logging.getLogger(__name__)


class Client(Protocol):
    """The interface between the engine and a session. Called from lanes only, one call at a time for each stream."""

    memory: Any  # the task's

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        """Copy the next chunk into ``rows``, by stream input; returns the number of steps that are not padding. -1:
        there is no chunk now, and :meth:`Engine.ready` will be called for the next one.
        """

    def deliver(self, events: Sequence[Event]) -> bool:
        """Take the chunk's events. True when there is another chunk to run. Does not raise."""

    def fail(self, message: str) -> None:
        """The chunk failed, and the stream's state is lost. Does not raise."""

    def released(self) -> None:
        """The slot is free; called when :meth:`Engine.close_stream` could not free it at once. Does not raise."""


class EngineStream:
    """A client's place in the engine. The client says when its next chunk is due (``deadline``, monotonic; 0: long ago)
    and whether there is a listener (``heard``), before it calls ready. ``span``: the trace span of its chunks."""

    __slots__ = ("client", "closing", "deadline", "due", "heard", "place", "since", "slot", "span")

    def __init__(self, client: Client, slot: Slot) -> None:
        self.client, self.slot = client, slot
        self.deadline, self.heard = 0.0, True
        self.span: Span | None = None
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False


class Lane(threading.Thread):
    """``limit``: streams in a batch.

    ``python``: a lock shared by the lanes of one engine, held while a lane works in Python and NumPy. Only one thread
    can hold the GIL anyway, and two that compete for it switch at every larger NumPy call, which slows decoding down by
    up to a half. Never held during a run.
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
            except Exception as error:  # any error belongs to this batch; the lane goes on
                self._fail(dict.fromkeys(taken, error), error)
            for closed in self._scheduler.done(batch, [stream in more for stream in batch]):
                self._arena.release(closed.slot)
                closed.client.released()

    def _step(
        self, runner: BatchRunner, batch: list[EngineStream], taken: list[EngineStream], more: set[EngineStream]
    ) -> None:
        """``taken``: streams that had a chunk. ``more``: streams that have another one."""
        begin, watch = perf_counter(), _watch()
        with self._python:
            steps = self._take(runner.rows(len(batch)), batch, taken)
        if not taken:
            return
        indexes = np.array([stream.slot.index for stream in taken], np.intp)
        generations = np.array([stream.slot.generation for stream in taken], np.int64)
        result = runner.run_rows(len(batch), indexes, generations)
        if watch is not None:
            watch.append(("run", monotonic()))
        with self._python:
            self._give(taken, steps, result, more, begin)
        if watch is not None:
            self._trace(taken, watch)

    def _trace(self, taken: list[EngineStream], parts: list[tuple[str, float]]) -> None:
        """Trace one chunk of the batch, for a share of the batches."""
        spans = tracer()
        if spans is not None and (row := spans.chosen(len(taken))) is not None:
            stream, parts = taken[row], [*parts, ("decode", monotonic())]
            name = self._model.manifest.name
            what: dict[str, Attribute] = {"streamer.model": name, "streamer.batch_size": len(taken)}
            spans.past("chunk", stream.span, min(stream.since, parts[0][1]), parts, what)

    def _give(
        self, taken: list[EngineStream], steps: list[int], result: BatchResult, more: set[EngineStream], begin: float
    ) -> None:
        """Decode the outputs by the task and deliver the events."""
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
            if stream.closing:  # the stream was closed while the others were decoded
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
        """Decode all good rows at once: their streams, their steps, and the task's events."""
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
        """``errors``: reasons by the stream whose chunk failed. ``cause``: an exception for the log, which need not
        belong to a stream."""
        what = {"model": self._model.manifest.name, "streams": len(errors), "error": error_line(cause)}
        log.error("a batch failed", extra=what)
        log.debug("the failure in full", exc_info=cause)
        self._metrics.failed_batches.inc()
        for stream, error in errors.items():
            if not stream.closing:
                stream.client.fail(error_line(error))


def _watch() -> list[tuple[str, float]] | None:
    """Begin a chunk's trace at the start of its wait in the queue; ``None``: this chunk is not traced."""
    return None if tracer() is None else [("queue", monotonic())]
