"""The benchmark of online forecasting: no forecast knows what comes after it, and the scores are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import online
from bench.series import Series
from export.build import build
from models.forecast.online import Expert, Online, OnlineConfig, info

pytestmark = pytest.mark.long

HORIZON = 48


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("online") / "online.onnx"
    config = OnlineConfig(horizon=HORIZON, experts=(Expert(3, 0.99, 1),))
    build(Online(config).eval(), info("online", config), path, long_chunks=60)
    return path


def data(rows: int = 220, seed: int = 0) -> Series:
    values = np.cumsum(np.random.default_rng(seed).standard_normal((rows, 2)), 0)
    return Series("made", values, 100, 20, 3600.0)


def test_noise_in_the_future_changes_no_forecast_by_a_bit(model: Path) -> None:
    plain, other = data(), data()
    other.values[150:] += np.random.default_rng(1).standard_normal(other.values[150:].shape)
    a, b = (online.forecasts(model, d.values, d.phases()) for d in (plain, other))
    assert a.shape == (2, 220, 3, HORIZON)
    assert a[:, :150].tobytes() == b[:, :150].tobytes()
    assert not np.array_equal(a[:, 150], b[:, 150])


def test_a_variable_is_forecast_alike_alone_and_beside_others(model: Path) -> None:
    both = data()
    a = online.forecasts(model, both.values, both.phases())
    b = online.forecasts(model, both.values[:, 1:], both.phases())
    assert np.allclose(a[1:], b, rtol=1e-4, atol=1e-4)


def test_scores_are_means_over_all_windows_of_the_span() -> None:
    made = data()
    found = np.random.default_rng(2).standard_normal((2, 220, 3, HORIZON)).astype(np.float32)
    found.sort(axis=2)
    found = found[:, :, [1, 0, 2]]  # mean between the ends
    scores = online.score(made, found, made.test, 220)
    for horizon in online.HORIZONS:
        errors, naive, inside = [], [], []
        for origin in range(made.test - 1, 220 - horizon):
            for c in range(2):
                want = made.values[origin + 1 : origin + 1 + horizon, c]
                errors.append(found[c, origin, 0, :horizon] - want)
                naive.append(made.values[origin, c] - want)
                inside.append((found[c, origin, 1, :horizon] <= want) & (want <= found[c, origin, 2, :horizon]))
        assert scores[str(horizon)]["mse"] == pytest.approx(np.mean(np.square(errors)))
        assert scores[str(horizon)]["mae"] == pytest.approx(np.mean(np.abs(errors)))
        assert scores[str(horizon)]["persistence_mse"] == pytest.approx(np.mean(np.square(naive)))
        assert scores[str(horizon)]["coverage"] == pytest.approx(np.mean(inside))


def test_time_of_day_and_week() -> None:
    phases = data().phases()
    assert phases[30].tolist() == pytest.approx([6 / 24, 30 / 168])
    assert data().month == 720
