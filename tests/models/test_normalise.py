"""Running averages of a sensor: what they follow, and what must not move them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.forecast.normalise import Averages, follow, waves
from models.forecast.rls import Rls


def run(values: NDArray[np.float64], memory: float = 500.0) -> tuple[Averages, NDArray[np.float32]]:
    """The last averages, and the scale after every reading."""
    now, scales = Averages(*torch.zeros(6, 1)), []
    for value in torch.from_numpy(values).float():
        now, scale, _ = follow(value[None], torch.ones(1), now, memory)
        scales.append(scale.item())
    return now, np.array(scales, np.float32)


def test_level_scale_and_pace_are_what_they_are_called() -> None:
    values = 50 + 4 * np.random.default_rng(0).standard_normal(3000)
    now, scales = run(values)
    assert abs(now.level.item() - 50) < 0.5
    assert abs(scales[-1] - 4) < 0.4
    assert abs(now.squares.item() ** 0.5 - 4 * 2**0.5) < 0.6
    assert now.count.item() == 500


@pytest.mark.parametrize(("share", "signs"), [(0.05, (-1.0, 1.0)), (0.01, (1.0,))])
def test_readings_may_be_spikes_of_any_size(share: float, signs: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal(3000)
    spikes = rng.random(3000) < share
    spikes[:200] = False
    values[spikes] = 1e12 * rng.choice(signs, spikes.sum())
    now, scales = run(values)
    assert scales.max() < 100
    assert abs(now.level.item()) < 50


def test_what_was_stuck_for_long_is_followed_when_it_wakes_up() -> None:
    values = np.concatenate([np.full(3000, 7.0), 7 + np.random.default_rng(2).standard_normal(400)])
    _, scales = run(values)
    assert scales[2999] < 1e-2
    assert scales[-1] > 0.3


def test_least_squares_stays_positive_when_there_is_news_after_long_silence() -> None:
    """In float32 what is learnt then would be less than what is rounded away."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        layer = Rls(40, 2, 0.999)
        state = layer.initial_state(1)
        state["covariance"] = (9999 * torch.eye(40))[None]  # as far as it goes while nothing is heard
        for _ in range(5):
            now = torch.from_numpy(rng.choice([-20.0, 20.0], (1, 40))).float()
            past, labels = now[:, None].expand(1, 2, 40), torch.zeros(1, 2)
            _, state = layer(now, past, labels, torch.zeros(1, 2), torch.ones(1, 1), state)
            whole = (state["covariance"] + torch.eye(40)).double()
            assert torch.linalg.eigvalsh(whole).min() > 0


def test_waves_have_the_day_first() -> None:
    clock = torch.tensor([[0.25, 0.5]])
    found = waves(clock)
    assert found.shape == (1, 12)
    assert torch.allclose(found[0, :2], torch.tensor([1.0, 0.0]), atol=1e-4)  # a quarter of the day
    assert torch.allclose(found[0, 8:10], torch.tensor([0.0, -1.0]), atol=1e-4)  # half of the week
