"""Streams of any task that ask for the model's tensors, beside others that do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.engine.model import Model
from streamer.tasks import create
from streamer.tasks.raw import Outputs
from streamer.tasks.tensors import WithTensors


@pytest.fixture
def task(toy: Path) -> WithTensors:
    manifest = Model.load(toy).manifest
    return WithTensors(create(manifest), manifest)


def outputs(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    return {"log_probs": rng.normal(size=(count, 4, 3)).astype(np.float32)}


def told(events: Any) -> list[Any]:
    return [event.to_dict() for event in events]


@pytest.mark.parametrize("asked", [(True,), (False,), (True, False, True), (False, False, True), (True, True)])
def test_company_changes_nothing(task: WithTensors, asked: tuple[bool, ...]) -> None:
    given, steps = outputs(len(asked)), [4, 3, 2][: len(asked)]
    together = task.step([task.open({"tensors": each}) for each in asked], given, steps)
    for row, each in enumerate(asked):
        part = {name: array[row : row + 1] for name, array in given.items()}
        (alone,) = task.step([task.open({"tensors": each})], part, steps[row : row + 1])
        assert told(together[row]) == told(alone)
        if each:
            (event,) = alone
            assert isinstance(event, Outputs)
            np.testing.assert_array_equal(event.outputs["log_probs"], given["log_probs"][row, : steps[row]])


@pytest.mark.parametrize("asked", [True, False])
def test_a_memory_goes_on_where_it_was(task: WithTensors, asked: bool) -> None:
    memory = task.open({"tensors": asked})
    task.step([memory], outputs(1), [4])
    again = task.load(task.save(memory))
    assert task.save(again) == task.save(memory)
    assert told(task.step([again], outputs(1), [4])[0]) == told(task.step([memory], outputs(1), [4])[0])
    assert told(task.finish(again)) == told(task.finish(memory))


def test_options_are_the_tasks_own(task: WithTensors) -> None:
    with pytest.raises(ValueError, match="true or false"):
        task.open({"tensors": 1})
    with pytest.raises(ValueError, match="no_such"):
        task.open({"no_such": 1})
