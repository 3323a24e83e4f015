"""The task forecast: what a graph says becomes events; options and memories are checked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streamer.contract.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks import TaskError, create

LEVELS = [0.1, 0.5, 0.9]


def manifest(options: dict[str, Any], quantiles: tuple[int, ...] = (1, 4, 3), width: int = 4) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "small",
            "version": "1",
            "task": "forecast",
            "licence": "Apache-2.0",
            "input": Input(name="readings", dtype="float32", chunk_shape=(1, width), step_seconds=0.0),
            "states": (),
            "outputs": (
                Output(name="mean", dtype="float32", shape=quantiles[:-1]),
                Output(name="quantiles", dtype="float32", shape=quantiles),
            ),
            "latency": 0,
            "flush": 0,
            "max_batch": 8,
            "options": options,
            "provenance": Provenance(data="none", revision="none", tolerance=0.0),
            "golden": Golden(chunks=(), outputs={"mean": (), "quantiles": ()}),
        }
    )


def test_every_reading_has_a_forecast() -> None:
    task = create(manifest({"quantiles": LEVELS, "horizon": 4}))
    first, second = task.open({}), task.open({})
    quantiles = np.arange(2 * 4 * 3, dtype=np.float32).reshape(2, 1, 4, 3)
    outputs = {"mean": quantiles[..., 1], "quantiles": quantiles}
    (one,), nothing = task.step([first, second], outputs, [1, 0])
    assert nothing == []
    assert json.loads(json.dumps(one.to_dict())) == {
        "type": "forecast",
        "mean": [1, 4, 7, 10],
        "quantiles": {"0.1": [0, 3, 6, 9], "0.5": [1, 4, 7, 10], "0.9": [2, 5, 8, 11]},
        "anomaly": None,
        "drift": None,
    }
    outputs |= {"anomaly": np.float32([[0.25], [1]]), "drift": np.float32([[2], [1]])}
    ((said,), _) = task.step([first, second], outputs, [1, 0])
    assert (said.to_dict()["anomaly"], said.to_dict()["drift"]) == (0.25, 2.0)
    assert task.finish(first) == []
    assert task.save(task.load(task.save(first))) == task.save(first) != task.save(second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 4}, "options.quantiles"),
        ({"quantiles": [0.5, 0.1, 0.9], "horizon": 4}, "must ascend"),
        ({"quantiles": [0.0, 0.5, 0.9], "horizon": 4}, "options.quantiles.0"),
        ({"quantiles": LEVELS, "horizon": 5}, r"mean \[steps, 5\]"),
        ({"quantiles": LEVELS, "horizon": 4, "colour": 1}, "options.colour"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TaskError, match=message):
        create(manifest(options))


def test_foreign_options_and_memories_are_refused() -> None:
    task = create(manifest({"quantiles": LEVELS, "horizon": 4}))
    with pytest.raises(ValueError, match="leave out coverage"):
        task.open({"coverage": 0.9})
    with pytest.raises(ValueError, match="not a memory"):
        task.load(b"abc")


SEVERAL = {"quantiles": LEVELS, "horizon": 4, "variables": ["a", "b", "c"], "targets": ["c", "a"]}


def test_a_row_of_several_variables_has_a_forecast_of_each_target() -> None:
    task = create(manifest(SEVERAL, (1, 2, 4, 3), 8))
    memories = [task.open({}), task.open({})]
    quantiles = np.arange(2 * 2 * 4 * 3, dtype=np.float32).reshape(2, 1, 2, 4, 3)
    outputs = {"mean": quantiles[..., 1], "quantiles": quantiles, "anomaly": np.float32([[[0.25, 1]], [[1, 1]]])}
    (one, two), nothing = task.step(memories, outputs, [1, 0])
    assert nothing == []
    assert [event.to_dict()["target"] for event in (one, two)] == ["c", "a"]
    assert (one.to_dict()["mean"], two.to_dict()["mean"]) == ([1, 4, 7, 10], [13, 16, 19, 22])
    assert two.to_dict()["quantiles"]["0.9"] == [14, 17, 20, 23]
    assert (one.to_dict()["anomaly"], two.to_dict()["anomaly"], one.to_dict()["drift"]) == (0.25, 1.0, None)
    assert task.save(task.load(task.save(memories[0]))) == task.save(memories[0]) != task.save(memories[1])


@pytest.mark.parametrize(
    ("changes", "quantiles", "width", "message"),
    [
        ({"targets": []}, (1, 2, 4, 3), 8, "variables are two or more"),
        ({"variables": [], "targets": ["a"]}, (1, 1, 4, 3), 4, "variables are two or more"),
        ({"variables": ["a"], "targets": ["a"]}, (1, 1, 4, 3), 4, "variables are two or more"),
        ({"targets": ["a", "d"]}, (1, 2, 4, 3), 8, "d is not"),
        ({"variables": ["a", "b", "a", "c"]}, (1, 2, 4, 3), 10, "named twice: a"),
        ({}, (1, 4, 3), 8, r"of 2 targets \[steps, 2, ...\]"),
        ({}, (1, 2, 4, 3), 6, "a row of its 3 variables has 8 numbers"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    changes: dict[str, Any], quantiles: tuple[int, ...], width: int, message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        create(manifest(SEVERAL | changes, quantiles, width))
