"""The forecaster that learns while it runs: the laws of every layer, what it learns, and what it must survive."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import models
from models.__main__ import main
from models.forecast.network import NetworkConfig
from models.forecast.normalise import harmonics
from models.forecast.online import CHANNELS, Expert, Online, OnlineConfig
from models.layers import State

pytestmark = pytest.mark.long

HORIZON = 6
OUTPUTS = "mean", "quantiles", "anomaly", "drift"
SMALL = OnlineConfig(horizon=HORIZON, experts=(Expert(4, 0.98, 0), Expert(12, 0.998, 1)), half_life=100)


def readings(values: NDArray[np.float64], there: NDArray[np.bool_] | None = None, day: int = 24) -> torch.Tensor:
    """[T] or [B, T] values of a sensor that reads ``day`` times a day -> [B, T, 4]."""
    rows = np.atleast_2d(values)
    time = np.broadcast_to(np.arange(rows.shape[1]), rows.shape)
    mask = np.ones_like(rows) if there is None else np.broadcast_to(there, rows.shape)
    return torch.from_numpy(np.stack([rows, mask, time / day % 1, time / day / 7 % 1], 2).astype(np.float64))


@torch.no_grad()
def run(
    x: torch.Tensor, config: OnlineConfig = SMALL, state: State | None = None
) -> tuple[dict[str, np.ndarray], State]:
    model = Online(config).eval()
    outputs, state = model(x, model.initial_state(len(x)) if state is None else state)
    return {name: tensor.numpy() for name, tensor in outputs.items()}, state


class Step(torch.nn.Module):
    """One step of ``SMALL``, of tensors alone."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Online(SMALL)
        self.names = sorted(self.model.initial_state(1))

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        said, new = self.model(x, dict(zip(self.names, state, strict=True)))
        return (*said.values(), *(new[name] for name in self.names))


@torch.no_grad()
def play(x: torch.Tensor) -> tuple[dict[str, np.ndarray], State]:
    """What :func:`run` says, to the last bit, in a third of its time: for long series."""
    step = Step().eval()
    start = step.model.initial_state(len(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shapes that are constants of the trace
        traced = torch.jit.trace(step, (x[:, :1], *(start[name] for name in step.names)), check_trace=False)
    parts, state = list[Sequence[torch.Tensor]](), [start[name] for name in step.names]
    for t in range(x.shape[1]):
        said = traced(x[:, t : t + 1], *state)
        state = said[len(OUTPUTS) :]
        parts.append(said[: len(OUTPUTS)])
    found = {name: torch.cat(rows, 1).numpy() for name, rows in zip(OUTPUTS, zip(*parts, strict=True), strict=True)}
    return found, dict(zip(step.names, state, strict=True))


def errors(forecasts: NDArray[np.float32], values: NDArray[np.float64], after: int) -> NDArray[np.float64]:
    """Mean squared error of each step ahead, of forecasts [B, T, H] of values [B, T], made from ``after`` on."""
    steps = range(1, forecasts.shape[2] + 1)
    return np.array([np.mean((forecasts[:, after:-h, h - 1] - values[:, after + h :]) ** 2) for h in steps])


def last_value(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(values[:, :, None], HORIZON, 2)


def walk(length: int, seed: int = 0, streams: int = 1) -> NDArray[np.float64]:
    return np.cumsum(np.random.default_rng(seed).standard_normal((streams, length)), 1)


def daily(length: int, streams: int = 4, seed: int = 0) -> NDArray[np.float64]:
    """A level, a daily wave and a little noise."""
    noise = np.random.default_rng(seed).standard_normal((streams, length))
    return 20 + 3 * np.sin(2 * np.pi * np.arange(length) / 24) + 0.1 * noise


def test_state_starts_as_zeros_and_keeps_its_shapes() -> None:
    model = Online(SMALL)
    state = model.initial_state(3)
    assert not any(tensor.any() for tensor in state.values())
    _, after = model(readings(walk(5, streams=3)), state)
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in state.items()}


def test_harmonics_are_sines_and_cosines() -> None:
    phase = torch.linspace(0, 1, 97)[:, None]
    found = harmonics(phase, 4)
    for k in range(1, 5):
        angle = 2 * math.pi * k * phase[:, 0]
        assert torch.allclose(found[:, 2 * k - 2], angle.sin(), atol=2e-5)
        assert torch.allclose(found[:, 2 * k - 1], angle.cos(), atol=2e-5)


@pytest.mark.parametrize("cut", [1, 17, 60])
def test_any_split_gives_the_same(cut: int) -> None:
    x = readings(walk(80))
    whole, end = run(x)
    first, state = run(x[:, :cut])
    second, last = run(x[:, cut:], state=state)
    for name in whole:
        assert np.array_equal(np.concatenate([first[name], second[name]], 1), whole[name])
    assert all(torch.equal(last[name], end[name]) for name in end)


@pytest.mark.parametrize("poison", [math.nan, math.inf, 1e30, -3e38])
def test_a_neighbour_does_no_harm(poison: float) -> None:
    x = readings(walk(60, streams=2))
    alone, _ = run(x[:1])
    x[1] = poison
    beside, _ = run(x)
    for name in alone:
        assert np.allclose(beside[name][0], alone[name][0], rtol=1e-3, atol=1e-3)


def test_no_forecast_knows_what_comes_after_it() -> None:
    x = readings(walk(120))
    other = x.clone()
    other[:, 70:, 0] += torch.randn(1, 50)
    a, b = run(x)[0], run(other)[0]
    for name in a:
        assert np.array_equal(a[name][:, :70], b[name][:, :70])
        assert not np.array_equal(a[name][:, 70:], b[name][:, 70:])


def test_what_is_played_is_what_it_says() -> None:
    x = readings(walk(120, streams=3))
    want, end = run(x)
    said, state = play(x)
    assert all(np.array_equal(said[name], want[name]) for name in want)
    assert all(torch.equal(state[name], tensor) for name, tensor in end.items())


def test_it_learns_a_wave_and_a_daily_pattern() -> None:
    values = daily(600) + np.sin(2 * np.pi * np.arange(600) / 9)
    out, _ = play(readings(values))
    assert (errors(out["mean"], values, 300) < 0.05 * errors(last_value(values), values, 300)).all()


def test_on_a_random_walk_it_is_hardly_worse_than_the_last_reading() -> None:
    values = walk(700, streams=16)
    out, _ = play(readings(values))
    assert (errors(out["mean"], values, 300) < 1.1 * errors(last_value(values), values, 300)).all()


def test_scale_and_level_do_not_matter() -> None:
    values = daily(300, streams=1)
    plain = play(readings(values))[0]["mean"]
    for scale, level in ((1e-3, 0.0), (1e4, 2e4)):
        moved = play(readings(scale * values + level))[0]["mean"]
        assert np.abs((moved[:, 50:] - level) / scale - plain[:, 50:]).max() < 0.1


def test_intervals_hold_what_they_promise_while_the_noise_grows() -> None:
    values = np.zeros((24, 1200))
    noise = np.random.default_rng(2).standard_normal(values.shape) * np.linspace(1, 4, 1200)
    for t in range(1, 1200):
        values[:, t] = 0.8 * values[:, t - 1] + noise[:, t]
    quantiles = play(readings(values))[0]["quantiles"]
    assert (np.diff(quantiles, axis=3) >= 0).all()
    low, high = SMALL.quantiles.index(0.05), SMALL.quantiles.index(0.95)
    for h in range(1, HORIZON + 1):
        truth = values[:, 400 + h :]
        inside = (quantiles[:, 400:-h, h - 1, low] <= truth) & (truth <= quantiles[:, 400:-h, h - 1, high])
        assert 0.87 < inside.mean() < 0.93
        assert min(part.mean() for part in np.array_split(inside, 5, axis=1)) > 0.85


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e6])
def test_intervals_are_about_right_from_the_third_reading_on(unit: float) -> None:
    values = (300 + walk(80, seed=5, streams=200)) * unit
    quantiles = play(readings(values))[0]["quantiles"]
    low, high = SMALL.quantiles.index(0.05), SMALL.quantiles.index(0.95)
    for h in range(1, HORIZON + 1):
        for first, behind in ((2, 12), (12, 24), (24, 40), (40, 74)):
            truth = values[:, first + h : behind + h]
            given = quantiles[:, first:behind, h - 1]
            assert 0.84 < np.mean((given[:, :, low] <= truth) & (truth <= given[:, :, high])) < 0.97


def test_missing_readings_are_neither_learnt_nor_taken_for_zeros() -> None:
    values = daily(500)
    there = np.random.default_rng(3).random(values.shape) > 0.3
    out, _ = play(readings(np.where(there, values, 0.0), there))
    assert np.sqrt(errors(out["mean"], values, 300)).max() < 1.0
    other, _ = play(readings(np.where(there, values, 1e9), there))
    for name in out:
        assert np.array_equal(out[name], other[name])


def test_a_surprise_is_improbable_and_probabilities_are_honest() -> None:
    values = daily(3000, streams=8)
    strange = [2900, 2950]
    values[:, strange] += 3.0
    out, _ = play(readings(values))
    assert (out["anomaly"][:, strange[0]] < 0.001).all()
    usual = out["anomaly"][:, 1000:2890]
    for share in (0.5, 0.2, 0.05, 0.01):
        assert 0.6 * share < (usual < share).mean() < 1.5 * share
    assert (out["anomaly"] > 0).all()
    assert (out["anomaly"] <= 1).all()


def test_probabilities_are_honest_far_out_in_heavy_tails_too() -> None:
    values = 20 + np.random.default_rng(7).standard_t(2, (24, 3000))
    out, _ = play(readings(values))
    for share, most in ((0.01, 2.0), (0.001, 4.0)):
        assert 0.25 * share < (out["anomaly"][:, 1000:] < share).mean() < most * share


def test_a_shift_of_level_is_told_once() -> None:
    values = daily(900, streams=8)
    values[:, 800:] += 8.0
    anomaly = play(readings(values))[0]["anomaly"]
    assert (anomaly[:, 800] < 0.001).all()
    assert (anomaly[:, 803:] > 0.001).all()


def test_nothing_is_forecast_that_the_sensor_has_never_shown() -> None:
    values = walk(600, streams=8, seed=4) + np.linspace(0, 80, 600)
    mean = play(readings(values))[0]["mean"]
    assert (mean <= np.maximum.accumulate(values, 1)[:, :, None] + 1e-3).all()
    assert (mean >= np.minimum.accumulate(values, 1)[:, :, None] - 1e-3).all()


def test_of_equals_persistence_is_preferred_and_alone_in_the_beginning() -> None:
    model = Online(SMALL)
    steps = len(model.grid.steps)
    weights = model.hedge(torch.ones(1, 5, steps))
    assert (weights[:, 0] > 2 * weights[:, 1]).all()
    assert torch.allclose(weights.sum(1), torch.ones(1, steps))
    better = torch.tensor([1.0, 0.5, 1.0, 1.0, 1.0])[None, :, None].expand(1, 5, steps)
    assert (model.hedge(better)[:, 1] > 0.99).all()
    assert model.hedge(torch.zeros(1, 5, steps))[:, 0].min() == 1


@pytest.mark.parametrize(("day", "period"), [(24, 24), (24, 168), (96, 96)])
def test_it_knows_from_the_third_on_what_a_day_or_a_week_is_like(day: int, period: int) -> None:
    """A pattern without any smoothness, which no few lags and harmonics can learn."""
    pattern = np.random.default_rng(1).standard_normal((4, period))
    values = np.tile(pattern, 5)
    out, _ = play(readings(values, day=day))
    naive = errors(last_value(values), values, 3 * period)
    assert (errors(out["mean"], values, 3 * period) < 0.1 * naive).all()
    other, _ = play(readings(values, day=1_000_000))  # a clock that does not help
    assert (errors(other["mean"], values, 3 * period) > 0.3 * naive).all()


def test_a_spike_a_day_ago_is_not_forecast_again() -> None:
    values = daily(400)
    values[:, 300] = 1e12
    out, _ = play(readings(values))
    assert np.abs(out["mean"][:, 305:]).max() < 1000


def test_intervals_are_wide_within_a_day_of_unrest() -> None:
    noise = np.random.default_rng(6).standard_normal((8, 1230))
    noise[:, 1200:] *= 5
    quantiles = play(readings(20 + noise))[0]["quantiles"]
    width = quantiles[:, :, 0, -1] - quantiles[:, :, 0, 0]
    assert width[:, 1225:].mean() > 1.7 * width[:, 1100:1200].mean()


def test_drift_is_seen_while_it_is_new() -> None:
    values = daily(3000, streams=8)
    values[:, 2500:] += np.cumsum(np.random.default_rng(5).standard_normal((8, 500)), 1)
    drift = play(readings(values))[0]["drift"]
    assert 0.8 < np.median(drift[:, 2000:2500]) < 1.25
    assert (drift[:, 2550] > 3).all()


def test_the_network_is_an_expert_and_its_features_are_another() -> None:
    torch.manual_seed(0)
    config = replace(SMALL, network=NetworkConfig(hidden=16, horizon=HORIZON + 2))
    x = readings(daily(300, streams=2) + np.sin(2 * np.pi * np.arange(300) / 9))
    model = Online(config).eval()
    whole, end = model(x, model.initial_state(2))
    first, state = model(x[:, :111], model.initial_state(2))
    second, _ = model(x[:, 111:], state)
    for name in whole:
        assert torch.allclose(torch.cat([first[name], second[name]], 1), whole[name], atol=1e-4)
    assert end["losses"].shape[1] == 7
    assert bool((end["readout.weights"] != 0).any())
    again = OnlineConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    with pytest.raises(ValueError, match="8 steps ahead, not 9"):
        Online(replace(config, horizon=9))


def test_what_a_sensor_can_do_to_it_leaves_no_mark() -> None:
    """Stuck for long, spikes of 1e12, gaps, infinities: and then all is well again."""
    rng = np.random.default_rng(0)
    good = daily(240)
    stuck = np.repeat(good[:, -1:], 500, 1)
    spikes = np.where(rng.random((4, 100)) < 0.05, rng.choice([-1e12, 1e12, np.inf, -np.inf, np.nan, 3e38]), 20.0)
    gap = np.full((4, 100), np.nan)
    values = np.concatenate([good, stuck, spikes, gap, daily(1200, seed=1)], 1)
    out, state = play(readings(values))
    assert all(np.isfinite(array).all() for array in out.values())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    tail = values[:, -400:]
    assert np.sqrt(errors(out["mean"][:, -400:], tail, 200)).max() < 0.5 * tail.std()


def test_its_checkpoint_needs_no_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "forecast-online", "--folder", str(tmp_path)]) == 0
    assert "python -m export" in capsys.readouterr().out
    model, info = models.load(tmp_path / "best.pt")
    assert info["task"] == "forecast"
    assert info["input"]["chunk_shape"] == [1, CHANNELS]
    assert model.config == OnlineConfig()
