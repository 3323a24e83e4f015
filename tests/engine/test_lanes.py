"""Lanes: two models do not wait for each other, and what one client does wrong is its own."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from streamer.engine.engine import Engine
from streamer.engine.lanes import EngineStream
from streamer.engine.model import Model
from streamer.metrics import Metrics
from streamer.tasks import Event, Task, create
from tests.contract.several import reference, several, signal
from tests.engine.support import PATIENCE
from tests.toys import toy_model


class Rows:
    """A client with a few chunks; ``wrong``: the call that raises when its second chunk is there."""

    def __init__(self, x: NDArray[Any], gate: NDArray[Any], wrong: str = "") -> None:
        self.memory: Any = None
        self.told: list[Any] = []
        self.failed: list[str] = []
        self.over = threading.Event()
        self._x, self._gate, self._wrong, self._at = x, gate, wrong, 0

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        if self._wrong == "take" and self._at:
            raise RuntimeError("take is wrong")
        if self._wrong == "step" and self._at:
            self.memory.step = None  # the task's step raises, after it has changed other memories of the batch
        rows["x"][:], rows["gate"][:] = self._x[self._at], self._gate[self._at]
        self._at += 1
        return 1

    def deliver(self, events: Sequence[Event]) -> bool:
        if self._wrong == "deliver" and self._at > 1:
            raise RuntimeError("deliver is wrong")
        self.told += [event.to_dict() for event in events]
        if self._at == len(self._x):
            self.over.set()
        return self._at < len(self._x)

    def fail(self, message: str) -> None:
        self.failed.append(message)
        self.over.set()

    def released(self) -> None:
        self.told.append("released")


@pytest.mark.parametrize("wrong", ["take", "step", "deliver"])
def test_a_client_that_raises_is_told_and_costs_its_batch_nothing(tmp_path: Path, wrong: str) -> None:
    model = Model.load(several(tmp_path))
    metrics = Metrics(CollectorRegistry())
    engine = Engine(model, create(model.manifest), metrics.model("several"), capacity=5)
    streams: list[EngineStream] = []
    clients: list[Rows] = []
    given = [signal(seed, 4) for seed in range(5)]
    for number, (x, gate, speaker, language) in enumerate(given):
        client = Rows(x, gate, wrong if number == 2 else "")
        client.memory = engine.task.open({})
        stream = engine.open(client, {"speaker": speaker, "language": np.array([language])})
        assert stream is not None
        streams.append(stream)
        clients.append(client)
    for stream in streams:
        engine.ready(stream)
    engine.start()  # now that all are ready: they share their batches
    for client in clients:
        assert client.over.wait(PATIENCE)
    assert engine.close(PATIENCE)
    (message,) = clients[2].failed
    assert (message == f"{wrong} is wrong") == (wrong != "step")
    assert metrics.registry.get_sample_value("streamer_failed_batches_total", {"model": "several"}) == 1
    for number, one in enumerate(given):
        if number != 2:
            assert not clients[number].failed
            got = np.array([event["outputs"]["y"] for event in clients[number].told]).reshape(4, 3)
            np.testing.assert_allclose(got, reference(*one), rtol=1e-5, atol=1e-6)


def test_conditions_that_do_not_fit_take_no_slot(tmp_path: Path) -> None:
    model = Model.load(several(tmp_path))
    engine = Engine(model, create(model.manifest), Metrics(CollectorRegistry()).model("several"), capacity=1)
    x, gate, _, _ = signal(0, 1)
    with pytest.raises(ValueError, match="must be 0 to 3"):
        engine.open(Rows(x, gate), {"language": np.array([9])})
    assert engine.open(Rows(x, gate)) is not None


class Slow:
    """A task whose step waits until it may go on."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.open, self.finish, self.save, self.load = task.open, task.finish, task.save, task.load
        self.copy = task.copy
        self.inside, self.go = threading.Event(), threading.Event()

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> Sequence[Sequence[Event]]:
        self.inside.set()
        assert self.go.wait(PATIENCE)
        return self._task.step(memories, outputs, steps)


class Chunks:
    """A client with one chunk of silence."""

    def __init__(self, task: Task) -> None:
        self.memory = task.open({})
        self.over = threading.Event()

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        rows["pcm"][:] = 0
        return 4

    def deliver(self, events: Sequence[Event]) -> bool:
        self.over.set()
        return False

    def fail(self, message: str) -> None:
        raise AssertionError(message)

    def released(self) -> None:
        pass


def test_two_models_do_not_wait_for_each_other(tmp_path: Path) -> None:
    model = Model.load(toy_model(tmp_path))
    slow = Slow(create(model.manifest))
    engines = [
        Engine(model, task, Metrics(CollectorRegistry()).model("toy"), capacity=1)
        for task in (slow, create(model.manifest))
    ]
    clients = [Chunks(engine.task) for engine in engines]
    for engine, client in zip(engines, clients, strict=True):
        engine.start()
        stream = engine.open(client)
        assert stream is not None
        engine.ready(stream)
        if engine is engines[0]:
            assert slow.inside.wait(PATIENCE)  # it is decoding, and does not come to an end
    assert clients[1].over.wait(PATIENCE)
    assert not clients[0].over.is_set()
    slow.go.set()
    assert clients[0].over.wait(PATIENCE)
    assert all(engine.close(PATIENCE) for engine in engines)
