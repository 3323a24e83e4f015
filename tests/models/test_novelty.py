"""How probable a reading is: what must be found, what must not, and how often there is an alarm where all is well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.forecast.novelty import HOURS, Novelty
from models.forecast.sensors import DAY, synthetic
from models.layers import State

pytestmark = pytest.mark.long

ALARM = 0.001


@torch.no_grad()
def run(
    values: NDArray[np.float64], day: int = 96, residual: Sequence[float] = (1.0,)
) -> tuple[NDArray[np.float32], State]:
    """Probabilities [B, T] of readings [B, T], NaN where missing, ``day`` of them a day, whose scale is their
    deviation (of its inner part), and whose residuals are always of the same probability."""
    model = Novelty()
    state = model.initial_state(len(values))
    rows = torch.from_numpy(values.astype(np.float32))
    spread = np.subtract(*np.nanquantile(values, (0.9, 0.1), axis=1, keepdims=True)) / 2.56
    scale = torch.from_numpy(np.maximum(spread, 1e-6).astype(np.float32))
    surprise = torch.tensor(residual)[:, None].expand(len(values), 1)
    told = []
    for t in range(rows.shape[1]):
        value, there = rows[:, t : t + 1], torch.isfinite(rows[:, t : t + 1]).float()
        phase = torch.full_like(value, t % day / day)
        value = torch.where(there > 0, value, torch.zeros_like(value))
        probability, state = model(value, there, phase, scale, surprise, state)
        told.append(probability)
    return torch.cat(told, 1).numpy(), state


def noise(streams: int, length: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal((streams, length))


def daily(streams: int, length: int, day: int) -> NDArray[np.float64]:
    """Ten by day, none by night, and a little noise."""
    busy = np.abs(np.arange(length) % day / day - 0.5) < 0.2
    return 10.0 * busy + 0.2 * noise(streams, length)


def test_state_starts_as_zeros_keeps_its_shapes_and_is_small() -> None:
    model = Novelty()
    state = model.initial_state(3)
    assert not any(tensor.any() for tensor in state.values())
    _, after = run(noise(3, 5))
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in state.items()}
    assert sum(4 * tensor[0].numel() for tensor in state.values()) < 512


def test_a_shift_of_level_is_told_once() -> None:
    values = noise(8, 2500)
    values[:, 2000:] += 8.0
    found, _ = run(values)
    assert (found[:, 2000:2003] < ALARM).any(1).all()
    assert (found[:, 2003:] < ALARM).mean() < 0.005


@pytest.mark.parametrize("day", [48, 144])
def test_a_day_without_its_peak_is_told(day: int) -> None:
    values = daily(8, 20 * day, day)
    first = 18 * day
    values[:, first : first + day] = 0.2 * noise(8, day, seed=1)
    found, _ = run(values, day)
    assert (found[:, first : first + day] < ALARM).any(1).all()
    assert (found[:, 5 * day : first] < ALARM).mean() < 0.004


def test_unrest_by_day_is_no_news_and_at_night_it_is() -> None:
    values = daily(8, 14 * 96, 96)
    values[:, 13 * 96] = 10.0  # at midnight
    found, _ = run(values)
    assert (found[:, 13 * 96] < ALARM).all()


def test_an_improbable_residual_is_told_where_nothing_is_novel() -> None:
    residuals = np.array([1e-9, 0.02, 0.1, 0.5, 0.9], np.float32)
    found, _ = run(noise(5, 1100), residual=residuals.tolist())
    assert (found[0, 1000:] < ALARM).all()
    assert np.allclose(np.median(found[1:, 1000:], 1), residuals[1:], atol=0.01)


@pytest.mark.parametrize("kind", ["normal", "uniform", "student", "walk", "autoregression", "synthetic"])
def test_alarms_are_as_rare_as_they_say(kind: str) -> None:
    rng = np.random.default_rng(3)
    streams, length = 64, 3000
    values = noise(streams, length)
    if kind == "uniform":
        values = rng.random((streams, length))
    elif kind == "student":
        values = rng.standard_t(3, (streams, length))
    elif kind == "walk":
        values = np.cumsum(values, 1)
    elif kind == "autoregression":
        for t in range(1, length):
            values[:, t] += 0.95 * values[:, t - 1]
    elif kind == "synthetic":
        values = np.stack([s.values for s in synthetic(90, length, seed=5) if s.step < DAY][:streams])
    found, _ = run(values.astype(np.float64))
    late = found[:, 1000:]
    assert (late > 0).all()
    assert (late <= 1).all()
    assert (late < ALARM).mean() < 2 * ALARM
    assert (late < 0.0001).mean() < 6 * 0.0001


def test_what_grows_steadily_is_hardly_news() -> None:
    """Only once a day, for as long as the means of the hours lag ever farther behind."""
    found, _ = run(np.arange(2000.0)[None])
    assert (found[:, 200:] < 0.01).mean() < 1.1 / 96
    assert (found[:, 200:] > 0.0002).all()


def test_a_spike_of_any_size_does_not_blind_it() -> None:
    values = noise(4, 3000)
    values[:, 1500] = [1e12, -1e12, 1e14, -1e6]
    values[:, 2000] = 40.0
    found, state = run(values)
    assert (found[:, 1500] < ALARM).all()
    assert (found[:, 2000] < ALARM).all()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def test_stuck_for_long_and_with_gaps_it_stays_sound() -> None:
    values = np.concatenate([noise(4, 500), np.full((4, 2000), 0.5), noise(4, 500, seed=1)], 1)
    values[:, 2600:2700] = np.nan
    found, state = run(values)
    assert np.isfinite(found).all()
    assert (found[:, 2600:2700] == 1).all()
    assert (found[:, 500:2500] > ALARM).all()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
    assert (state["visits"].shape, state["means"].shape) == ((4, HOURS), (4, HOURS))


def test_the_unit_of_the_sensor_does_not_matter() -> None:
    values = noise(4, 1500)
    values[:, 1200] = 9.0
    plain, _ = run(values)
    for scale, level in ((1e-3, 0.0), (1e5, 3e5)):
        moved, _ = run(scale * values + level)
        assert np.allclose(np.log(moved), np.log(plain), atol=0.05)
