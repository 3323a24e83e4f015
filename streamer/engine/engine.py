"""The engine of one model: an arena, a scheduler, and lanes that run ready chunks.

The path of a chunk: :meth:`Engine.ready` queues its stream; a lane (:mod:`streamer.engine.lanes`) takes a batch, runs
it (:mod:`streamer.engine.batch`), has the task decode all rows at once and delivers every client's events. Engines
share no state.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.batch import rungs
from streamer.engine.lanes import Client, EngineStream, Lane
from streamer.engine.load import Load
from streamer.engine.model import Model
from streamer.engine.scheduler import Gather, Scheduler
from streamer.metrics import ModelMetrics
from streamer.tasks import Task

__all__ = ["WAIT_SHARE", "Client", "Engine", "EngineStream"]

#: The largest share of a chunk's duration that it may wait to be batched.
WAIT_SHARE = 0.1


class Engine:
    """``limit``: largest batch. ``max_state_bytes`` bounds the states of all streams; the constructor raises
    :class:`ArenaError` if they do not fit.

    ``wait``: seconds that a ready chunk may wait to be batched with others, at most a tenth of a chunk's duration;
    ``pays``: a batch of this size does not wait.
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
        wait: float = 0.0,
        pays: int = 1,
    ) -> None:
        self.model, self.task, self.manifest, self.metrics = model, task, model.manifest, metrics
        self.arena = Arena(self.manifest.states, capacity, max_state_bytes, self.manifest.conditions)
        self.limit = min(limit, self.manifest.max_batch, capacity)
        self.wait = min(wait, WAIT_SHARE * self.manifest.chunk_seconds)
        self._scheduler: Scheduler[EngineStream] = Scheduler(
            self.limit, rungs(self.limit), wait=self.wait, pays=pays, held=metrics.held_seconds.observe
        )
        self.load = Load(lanes, self.limit, self.manifest.chunk_seconds)
        python = threading.Lock()
        self._lanes = [
            Lane(f"lane-{i}", model, task, self.arena, self._scheduler, metrics, self.limit, python, self.load)
            for i in range(lanes)
        ]

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    # -- streams -------------------------------------------------------------------------------------------------------

    def open(self, client: Client, conditions: Mapping[str, NDArray[Any]] | None = None) -> EngineStream | None:
        """A slot of zeros for the client, its conditions set; ``None`` when all are taken.

        Raises ``ValueError`` for conditions that are not the model's.
        """
        slot = self.arena.acquire()
        if slot is None:
            return None
        try:
            self.arena.set_conditions(slot, conditions or {})
        except ValueError:
            self.arena.release(slot)
            raise
        return EngineStream(client, slot)

    def ready(self, stream: EngineStream) -> None:
        """The client has a chunk. Never blocks; ignores a closed stream."""
        self._scheduler.ready(stream)

    def close_stream(self, stream: EngineStream) -> bool:
        """Free the slot: at once (True), or when the chunk in flight has come back. Then its result is late and
        dropped, and :meth:`Client.released` is called.
        """
        self.arena.retire(stream.slot)
        if not self._scheduler.remove(stream):
            return False
        self.arena.release(stream.slot)
        return True

    def gather(self, gather: Gather) -> None:
        """Wake lanes through ``gather`` from now on."""
        self._scheduler.gather = gather

    def let_first(self, others: Sequence[Engine]) -> None:
        """Let due chunks of ``others`` run before chunks of this engine that are not due yet."""

        def pressing() -> bool:
            now = monotonic()
            return any(other._scheduler.earliest < now for other in others)

        if others:
            self._scheduler.elsewhere = pressing

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def close(self, timeout: float | None = None) -> bool:
        """Stop the lanes after their current batch; queued chunks are not run. False if a lane did not end in time."""
        self._scheduler.close()
        until = None if timeout is None else monotonic() + timeout
        for lane in self._lanes:
            if lane.is_alive():
                lane.join(None if until is None else max(0.0, until - monotonic()))
        return not any(lane.is_alive() for lane in self._lanes)

    def stuck(self, seconds: float) -> bool:
        """Whether there was work for so many seconds without a finished batch."""
        return self._scheduler.stalled() > seconds

    def waited(self) -> float:
        """Seconds for which the oldest chunk with a listener has been due."""
        return self._scheduler.waited()
