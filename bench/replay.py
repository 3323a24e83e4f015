"""Runs sensor series through the real engine, row by row, each as a separate stream, concurrently."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from streamer.engine.engine import Engine, EngineStream
from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.sensors.timeline import phases
from streamer.tasks import Event, Forecast, create

Floats = NDArray[np.floating[Any]]
#: Called for every answer with series number, row number and event.
Take = Callable[[int, int, Forecast], None]


class Replayed:
    """A series as a client of the engine: sends the next row when the last one is answered."""

    def __init__(self, number: int, rows: Floats, take: Take, over: threading.Semaphore) -> None:
        self.memory: Any = None
        self._number, self._rows, self._take, self._over = number, rows, take, over
        self._taken = self._answered = 0
        self.failure = ""

    def take(self, rows: Mapping[str, Floats]) -> int:
        (row,) = rows.values()
        row[0] = self._rows[self._taken]
        self._taken += 1
        return 1

    def deliver(self, events: Sequence[Event]) -> bool:
        for event in events:
            assert isinstance(event, Forecast)
            self._take(self._number, self._answered, event)
            self._answered += 1
        if self._answered == len(self._rows):
            self._over.release()
            return False
        return True

    def fail(self, message: str) -> None:
        self.failure = message
        self._over.release()

    def released(self) -> None:
        """Nothing to do, since no stream waits for the slot."""


def replay(path: Path, series: Sequence[Floats], take: Take, capacity: int = 64) -> None:
    """Run ``series``, the model's input rows [N, 4] each, in the given order, at most ``capacity`` concurrently. Raises
    ``RuntimeError`` if one fails."""
    model = Model.load(path)
    for first in range(0, len(series), capacity):
        some = series[first : first + capacity]
        engine = Engine(model, create(model.manifest), Metrics(CollectorRegistry()).model("replay"), capacity=len(some))
        over = threading.Semaphore(0)
        clients, streams = [], list[EngineStream]()
        for number, rows in enumerate(some, first):
            client = Replayed(number, rows, take, over)
            client.memory = engine.task.open({})
            stream = engine.open(client)
            assert stream is not None
            clients.append(client)
            streams.append(stream)
        for stream in streams:
            engine.ready(stream)
        engine.start()  # once all are ready, so that every run has the same batches
        for _ in clients:
            over.acquire()
        engine.close()
        if failures := [client.failure for client in clients if client.failure]:
            raise RuntimeError(failures[0])


def clocks(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time of day and of week in [0, 1), [N, 2], from unix seconds [N], as in the daemon."""
    return np.stack(phases(times), 1)


def rows(values: NDArray[np.float64], clock: NDArray[np.float64]) -> Floats:
    """A forecaster's input rows [N, 4], from readings [N], NaN where missing, and ``clock`` [N, 2]."""
    there = np.isfinite(values)
    return np.column_stack([np.where(there, values, 0.0), there, clock])
