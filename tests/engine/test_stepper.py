"""Streams of a model without an engine: states kept, restored and reset, conditions set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from tests.contract.several import reference, several, signal
from tests.toys import samples, toy_model


def test_streams_side_by_side_are_what_each_is_alone(tmp_path: Path) -> None:
    model = Model.load(several(tmp_path))
    streams = [signal(seed, 5) for seed in range(3)]
    conditions = {
        "speaker": np.stack([one[2] for one in streams]),
        "language": np.array([[one[3]] for one in streams]),
    }
    stepper = Stepper(model, 3, conditions)
    told = [
        stepper.step(
            {
                "x": np.stack([one[0][t : t + 1] for one in streams]),
                "gate": np.stack([one[1][t : t + 1] for one in streams]),
            }
        )
        for t in range(5)
    ]
    for row, one in enumerate(streams):
        got = np.stack([outputs["y"][row, 0] for outputs in told])
        np.testing.assert_allclose(got, reference(*one), rtol=1e-5, atol=1e-6)


def test_states_may_be_put_back_and_a_reset_is_a_new_start(tmp_path: Path) -> None:
    model = Model.load(toy_model(tmp_path))
    chunks = samples(1, 4 * model.manifest.chunk).reshape(4, 1, -1)
    stepper, other = Stepper(model), Stepper(model)
    whole = [stepper.step(chunk)["log_probs"] for chunk in chunks]
    other.step(chunks[0])
    asleep = other.states
    other.step(chunks[3])
    other.states = asleep
    assert [other.step(chunk)["log_probs"].tobytes() for chunk in chunks[1:]] == [out.tobytes() for out in whole[1:]]
    other.reset()
    assert other.step(chunks[0])["log_probs"].tobytes() == whole[0].tobytes()


def test_a_step_that_fails_leaves_the_states_as_they_were(tmp_path: Path) -> None:
    model = Model.load(toy_model(tmp_path))
    stepper, other = Stepper(model), Stepper(model)
    first, second = samples(1, 2 * model.manifest.chunk).reshape(2, 1, -1)
    stepper.step(first)
    other.step(first)
    with pytest.raises(Exception, match="pcm"):
        stepper.step(second[:, :-1])
    assert stepper.step(second)["log_probs"].tobytes() == other.step(second)["log_probs"].tobytes()


def test_an_unknown_condition_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no condition 'voice'; there is speaker, language"):
        Stepper(Model.load(several(tmp_path)), 1, {"voice": np.zeros(3, np.float32)})
