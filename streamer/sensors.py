"""Forecasts for many sensors at once: readings go in one after another, every one comes out with its forecast.

Any thread may put, any one thread may take. What goes in is bounded, stream by stream and in all: a source that is
faster than the model waits. What comes out keeps the order in which it was put, whichever stream's batch was first.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from streamer.cadence import Cadence, Steps
from streamer.engine.arena import ArenaError
from streamer.engine.engine import Engine, Stream
from streamer.engine.model import Model, ModelError
from streamer.metrics import Metrics
from streamer.sources.readings import Reading
from streamer.tasks import Event, Forecast, TaskError, create
from streamer.tasks.forecast import Forecaster
from streamer.tasks.score import Score

__all__ = ["FullError", "Sensor", "Sensors", "Told", "phases"]

#: Readings of one stream, and of all of them, that are put and not yet run.
QUEUE, QUEUES = 64, 4096
INPUT = ("float32", (1, 4))


T = TypeVar("T", float, NDArray[np.float64])


class FullError(ValueError):
    """One stream more than there are slots."""


@dataclass(slots=True)
class Told:
    """A reading and what was said after it. ``forecast`` ``None``: the stream has had no value yet.

    Before it there are ``masked`` steps of ``step`` seconds. ``broken``: what was forecast before is not about this.
    """

    sensor: Sensor
    time: float
    value: float | None
    masked: int = 0
    step: float = 0.0
    broken: bool = False
    forecast: Forecast | None = None
    done: bool = False


class Sensor:
    """One stream: its clock, its queue, its score. The client of the engine."""

    def __init__(self, name: str, sensors: Sensors, cadence: Cadence) -> None:
        self.name, self.cadence = name, cadence
        self.readings = self.missing = 0
        self.score = Score(sensors.horizon, sensors.task.options.quantiles)
        self.last: Told | None = None
        self.memory = sensors.task.open({})
        self.queue: deque[Told] = deque()
        self.place = cast(Stream, None)  # given by Sensors, once there is a slot
        self._sensors = sensors
        self._current: Told | None = None  # in the engine; None: a masked step
        self._day: int | None = None  # steps of a day, as known when that reading came
        self._begun = False

    # -- called by lanes, one call at a time -------------------------------------------------------------------------

    def take(self, row: NDArray[Any]) -> int:
        if not self.queue:
            return -1
        told = self.queue[0]
        time, value = told.time, told.value
        self._day = round(86400 / told.step) if told.step else None
        if told.masked:  # the steps of a gap, one after another, before the reading behind it
            time -= told.masked * told.step
            told.masked -= 1
            value, self._current = None, None
        else:
            self._current = self.queue.popleft()
        row[0] = (0.0 if value is None else value, value is not None, *phases(time))
        return 1

    def deliver(self, events: Sequence[Event]) -> bool:
        told = self._current
        if told is None:
            self.score.truth(None, self._day)
            return True
        if told.broken:
            self.score.forget()
        self._begun = self._begun or told.value is not None
        self.score.truth(told.value, self._day)
        if self._begun:
            told.forecast = cast(Forecast, events[0])
            if told.value is not None:
                self.score.said(np.array(list(told.forecast.quantiles.values())), told.value)
        self.readings += 1
        self.missing += told.value is None
        self.last = told
        self._sensors.finished(told)
        return bool(self.queue)

    def fail(self, message: str) -> None:
        self._sensors.broke(f"{self.name}: {message}")


class Sensors:
    """``step`` in seconds, ``None``: every stream's own, inferred. ``gap``: masked steps for one gap, at most."""

    def __init__(self, path: Path, *, capacity: int, step: float | None, gap: int, lanes: int = 0) -> None:
        self.model = Model.load(path)
        manifest = self.model.manifest
        if manifest.task != "forecast":
            raise ModelError(f"{path} is for the task {manifest.task}, it does not forecast: streamer models shows")
        if (manifest.input.dtype, manifest.input.chunk_shape) != INPUT:
            raise ModelError(f"{path}: takes {manifest.input.chunk_shape}, not one reading with its clock {INPUT[1]}")
        try:
            self.task = cast(Forecaster, create(manifest))
            lanes = lanes or len(os.sched_getaffinity(0))
            table = Metrics(CollectorRegistry()).model(manifest.name)
            self._engine = Engine(self.model, self.task, table, lanes=lanes, capacity=capacity)
        except TaskError as error:
            raise ModelError(f"{path}: {error}") from error
        except ArenaError as error:
            raise ModelError(f"{path}: {error} (--capacity)") from error
        self.horizon, self.levels = self.task.options.horizon, self.task.levels
        #: The outer levels, and the one in the middle: 0.05, 0.5 and 0.95, if the model has them.
        self.outer = self.levels[0], self.levels[len(self.levels) // 2], self.levels[-1]
        self.streams: dict[str, Sensor] = {}
        self._capacity, self._step, self._gap = capacity, step, gap
        self._changed = threading.Condition()
        self._order: deque[Told] = deque()
        self._ended = False
        self._error: str | None = None
        self._engine.start()

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._engine.close()

    # -- in ------------------------------------------------------------------------------------------------------------

    def put(self, reading: Reading) -> Steps | None:
        """Waits for room. ``None``: a duplicate or late, it is counted and left out. May raise :class:`FullError`."""
        sensor = self.streams.get(reading.stream) or self._open(reading.stream)
        cadence = sensor.cadence
        time = reading.time
        if time is None:  # counted
            time = 0.0 if cadence.last is None else cadence.last + (self._step or 1.0)
        steps = cadence.place(time)
        if steps is None:
            return None
        told = Told(sensor, time, reading.value, steps.masked, cadence.step or 0.0, steps.gap or steps.restarted)
        with self._changed:
            while (len(sensor.queue) >= QUEUE or len(self._order) >= QUEUES) and not self._ended:
                self._changed.wait()
            self._order.append(told)
        sensor.queue.append(told)
        self._engine.ready(sensor.place)
        return steps

    def end(self) -> None:
        """Nothing more is put: :meth:`results` ends behind the last."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _open(self, name: str) -> Sensor:
        sensor = Sensor(name, self, Cadence(self._step, self._gap))
        place = self._engine.open(sensor)
        if place is None:
            raise FullError(f"more than {self._capacity} streams, the next is {name!r}: --capacity allows more")
        sensor.place = place
        self.streams[name] = sensor
        return sensor

    # -- out -----------------------------------------------------------------------------------------------------------

    def results(self) -> Iterator[Told]:
        """In the order in which they were put, each as soon as those before it are there."""
        while True:
            with self._changed:
                while not (self._order and self._order[0].done) and not self._error:
                    if self._ended and not self._order:
                        return
                    self._changed.wait()
                if self._error:
                    raise ModelError(f"{self.model.path}: failed while it ran: {self._error}")
                ready = []
                while self._order and self._order[0].done:
                    ready.append(self._order.popleft())
                self._changed.notify_all()
            yield from ready

    # -- called by lanes -----------------------------------------------------------------------------------------------

    def finished(self, told: Told) -> None:
        with self._changed:
            told.done = True
            if self._order[0] is told or len(told.sensor.queue) == QUEUE // 2:
                self._changed.notify_all()

    def broke(self, message: str) -> None:
        with self._changed:
            self._error = self._error or message
            self._changed.notify_all()


def phases(time: T) -> tuple[T, T]:
    """Time of day and of week (from Monday) in [0, 1), UTC; 1 January 1970 was a Thursday. Of one time or of many."""
    return time / 86400 % 1, (time / 86400 + 3) / 7 % 1
