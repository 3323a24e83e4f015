"""The task forecast: what a graph says becomes events; options and memories are checked."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from streamer.manifest import Golden, Input, Manifest, Output, Provenance
from streamer.tasks import TaskError, create

LEVELS = [0.1, 0.5, 0.9]


def manifest(options: dict[str, Any], quantiles: tuple[int, ...] = (1, 4, 3)) -> Manifest:
    return Manifest.model_validate(
        {
            "name": "small",
            "version": "1",
            "task": "forecast",
            "licence": "Apache-2.0",
            "input": Input(name="readings", dtype="float32", chunk_shape=(1, 4), step_seconds=0.0),
            "states": (),
            "outputs": (
                Output(name="mean", dtype="float32", shape=(1, 4)),
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
