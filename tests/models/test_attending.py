"""The encoder-decoder as a forecaster: any split, any company, its attention, and the recipe to a judged file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.replay import clocks, replay, rows
from export.build import build
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.forecast import attending, sequences
from models.zoo.forecast.attending_forecaster import AttendingConfig, AttendingForecaster, ForecastDecoder
from streamer.engine.model import Model
from streamer.tasks import Forecast
from tests.models.laws import assert_close, check_company, settle
from tests.models.test_zoo_sequences import HORIZON, Means, readings, waves

pytestmark = pytest.mark.long

SLOTS = 9


def small() -> AttendingForecaster:
    """With a head that says something."""
    torch.manual_seed(0)
    model = AttendingForecaster(AttendingConfig(hidden=8, slots=SLOTS))
    torch.nn.init.normal_(model.decoder.head.weight, std=0.3)
    torch.nn.init.normal_(model.decoder.distance)
    settle(model)
    return model


@torch.no_grad()
def test_any_split_and_any_company() -> None:
    model = small()
    x = readings(2, 40)
    whole, after = model(x, model.initial_state(2))
    state, means, looks = model.initial_state(2), [], []
    for piece in x.split([1, 1, 20, 5, 13], 1):
        said, state = model(piece, state)
        means.append(said["mean"])
        looks.append(said["attention"])
    assert_close(torch.cat(means, 1), whole["mean"])
    assert_close(torch.cat(looks, 1), whole["attention"])
    assert all(torch.allclose(state[name], after[name], rtol=1e-4, atol=1e-4) for name in after)
    assert (whole["quantiles"].diff(dim=3) >= 0).all()
    check_company(Means(model), x, lambda row: torch.full_like(row, float("nan")))


@torch.no_grad()
def test_it_looks_at_what_there_has_been() -> None:
    model = small()
    told, _ = model(readings(1, 20), model.initial_state(1))
    looks = told["attention"][0]  # [T, H, M]
    assert looks.shape == (20, HORIZON, SLOTS)
    assert torch.allclose(looks.sum(2), torch.ones(20, HORIZON))
    for t in range(SLOTS - 1):  # the memory fills from its end on
        assert (looks[t, :, : SLOTS - 1 - t] == 0).all()
        assert (looks[t, :, SLOTS - 1 - t :] > 0).all()


@torch.no_grad()
def test_distance_is_told_from_the_step_that_is_said() -> None:
    """With a table that wants what lies ten steps before, step h looks h - 10 readings back."""
    config = AttendingConfig(hidden=8, slots=SLOTS)
    decoder = ForecastDecoder(config, torch.ones(config.horizon))
    decoder.query.weight.zero_()
    decoder.distance[9] = 50.0  # the tenth
    memory, there = torch.randn(1, SLOTS, 8), torch.ones(1, SLOTS)
    _, weights = decoder(torch.zeros(1, 8), memory, there, torch.zeros(1, config.horizon))
    for ahead in range(2, 11):
        assert int(weights[0, ahead - 1].argmax()) == SLOTS - 1 - (10 - ahead)
    assert torch.allclose(weights[0, 0], torch.full((SLOTS,), 1 / SLOTS))  # ten before the next is out of the memory


@torch.no_grad()
def test_some_readings_are_as_all_of_them() -> None:
    model, x = small(), torch.randn(2, 30, small().enter.in_features)
    whole, _ = model.moves(x, model.memory(2))
    some, _, _ = model.attend(x, model.memory(2), torch.tensor([29, 3, 17]))
    assert_close(some, whole[:, [29, 3, 17]])


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe_and_its_file(tmp_path: Path) -> None:
    values = np.stack([sensor.values for sensor in waves(2, 200)])
    held = sequences.Held(values, 100, values.std(1))
    best = attending.learn(
        waves(6, 400), {"waves": 1.0}, held, held, tmp_path, Budget(steps=6, rate=3e-3, average=0.9),
        AttendingConfig(hidden=8, slots=SLOTS, horizon=4), batch=8, length=60,
    )  # fmt: skip
    assert (tmp_path / "attending.png").stat().st_size > 10_000
    model, about = checkpoint.load(best)
    assert isinstance(model, AttendingForecaster)
    path = tmp_path / "attending.onnx"
    assert build(model, about | {"scores": {}}, path, max_batch=4, long_chunks=60).ok
    assert [output.name for output in Model.load(path).manifest.outputs] == ["mean", "quantiles", "attention"]
    fed = rows(waves(1, 40)[0].values[:40].astype(np.float64), clocks(np.arange(40) * 3600.0))
    told: dict[int, Forecast] = {}
    replay(path, [fed], lambda number, row, event: told.update({row: event}))
    with torch.no_grad():
        want, _ = model(torch.from_numpy(fed).float()[None], model.initial_state(1))
    assert len(told) == 40
    assert all(np.allclose(told[row].mean, want["mean"][0, row], rtol=1e-4, atol=1e-3) for row in (0, 19, 39))
