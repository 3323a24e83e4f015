"""Training of forecasters: what the examples are, what the loss says, and a whole small run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from models.__main__ import main
from models.forecast import sensors
from models.forecast.forecasting import ForecastTrainingOptions, Segments, histories, loss, prepare
from models.forecast.front import PACKED, FrontAverages
from models.forecast.network import Network, NetworkConfig
from models.forecast.online import Online
from models.forecast.sensors import Sensor, synthetic
from models.shipped import forecast

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # Lightning's own
START = FrontAverages.of(torch.zeros(1, PACKED, dtype=torch.float64))
HORIZON, OPTIONS = 5, ForecastTrainingOptions(batch=6, length=60, batches=4)


def made(count: int = 12, length: int = 400) -> list[Sensor]:
    return list(synthetic(count, length))


def test_synthetic_sensors_are_all_different_and_finite_or_missing() -> None:
    some = made(60)
    assert len({sensor.values.tobytes() for sensor in some}) == 60
    assert not any(np.isinf(sensor.values).any() for sensor in some)
    assert any(np.isnan(sensor.values).any() for sensor in some)
    assert [s.values.tobytes() for s in made(3)] == [s.values.tobytes() for s in synthetic(3, 400)]


def test_examples_are_normalised_and_labelled_with_what_comes() -> None:
    values = torch.arange(40.0)[None] * 2 + 100
    batch = prepare(values, torch.zeros(1, 30, 2), START, HORIZON, 2000.0)
    assert batch.x.shape == (1, 30, 5 + 12)
    assert batch.labels.shape == batch.known.shape == (1, 30, HORIZON)
    assert batch.known.all()
    ahead = torch.arange(1.0, HORIZON + 1)
    assert torch.allclose(batch.labels[0, 29] / batch.labels[0, 29, 0], ahead, rtol=1e-4)
    moved = prepare(values * 1e3 - 5, torch.zeros(1, 30, 2), START, HORIZON, 2000.0)
    assert torch.allclose(moved.labels[:, 5:], batch.labels[:, 5:], rtol=1e-2)


def test_missing_readings_are_no_labels_and_no_origins() -> None:
    values = torch.randn(2, 40).cumsum(1)
    values[0, 10:14] = float("nan")
    batch = prepare(
        values, torch.zeros(2, 30, 2), FrontAverages.of(torch.zeros(2, PACKED, dtype=torch.float64)), HORIZON, 2000.0
    )
    assert not batch.known[0, 10:14].any()
    assert batch.known[0, 8].tolist() == [True, False, False, False, False]
    assert batch.known[1].all()
    assert torch.isfinite(batch.x).all()
    assert torch.isfinite(batch.labels).all()


def test_a_segment_may_begin_in_the_middle_of_a_life() -> None:
    some = made(3)
    for sensor, history in zip(some, histories(some, 50.0), strict=True):
        assert history.shape == (len(sensor.values), PACKED)
        assert not history[0].any()
        there = ~np.isnan(sensor.values)
        assert FrontAverages.of(history[10]).readings == there[:10].sum()
        assert history[:, 0].max() <= 50
    batch = Segments(some, {"synthetic": 1.0}, HORIZON, OPTIONS).batch()
    assert torch.isfinite(batch.x).all()


def test_the_loss_is_that_of_persistence_for_a_fresh_network_and_falls() -> None:
    torch.manual_seed(0)
    network = Network(NetworkConfig(hidden=16, layers=1, horizon=HORIZON, dropout=0.0))
    segments = Segments(made(), {"synthetic": 1.0}, HORIZON, OPTIONS)
    batch = segments.batch()

    def now() -> torch.Tensor:
        (_, change), _ = network(batch.x, network.initial_state(OPTIONS.batch))
        return loss(change, batch, 10)

    start = now()
    assert start.item() == pytest.approx(loss(torch.zeros_like(batch.labels), batch, 10).item())
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        now().backward()
        optimiser.step()
    assert now().item() < 0.8 * start.item()


@pytest.mark.parametrize("family", ["gru", "lstm", "convolution"])
def test_every_family_carries_its_state(family: str) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(family=family, hidden=8, horizon=HORIZON, dilations=(1, 2, 4))
    network = Network(config).eval()
    torch.nn.init.normal_(network.head.weight)
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    x = torch.randn(2, 40, 17)
    (features, change), _ = network(x, network.initial_state(2))
    assert (features.shape, change.shape) == ((2, 40, 8), (2, 40, HORIZON))
    (_, first), state = network(x[:, :17], network.initial_state(2))
    (_, second), _ = network(x[:, 17:], state)
    assert torch.allclose(torch.cat([first, second], 1), change, atol=1e-4)


def test_a_whole_run_and_its_continuation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sensors, "training", made)
    monkeypatch.setattr(sensors, "validation", lambda: made(4))
    monkeypatch.setattr(forecast, "SHARES", {"synthetic": 1.0})
    command = ["train", "forecast-universal", "--folder", str(tmp_path), "--minutes", "0.03"]
    assert main([*command, "--resume"]) == 2
    assert "nothing to resume" in capsys.readouterr().err
    assert main(command) == 0
    assert "python -m export" in capsys.readouterr().out
    model, info = models.load(tmp_path / "best.pt")
    assert isinstance(model, Online)
    assert (info["name"], info["task"], info["options"]["horizon"]) == ("forecast-universal", "forecast", 48)
    rows = (tmp_path / "log.jsonl").read_text().splitlines()
    assert {"step", "minutes", "loss", "skill"} <= set(json.loads(rows[0]))
    assert main([*command[:-1], "0.04", "--resume"]) == 0
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) > len(rows)


def test_the_training_part_ends_where_published_splits_begin_to_validate() -> None:
    try:
        found = sensors.training()
    except FileNotFoundError:
        pytest.skip("the shared sensor data is not there")
    lengths = {sensor.source: len(sensor.values) for sensor in found}
    assert lengths["ETTh2"] == 4 * 30 * 24
    assert lengths["ETTm1"] == 4 * 30 * 96
    assert lengths["exchange"] == 7588 // 5
    assert set(lengths) == set(forecast.SHARES)


def test_the_network_sees_in_training_what_it_sees_when_it_serves() -> None:
    """Also before the first reading, over gaps, and after a spike."""
    rng = np.random.default_rng(3)
    values = 20 + rng.standard_normal((2, 80)).cumsum(1)
    values[0, :3] = values[1, 30:36] = np.nan
    values[1, 60] = 1e9
    phases = rng.random((2, 75, 2))
    trained = prepare(torch.from_numpy(values).float(), torch.from_numpy(phases).float(),
                      FrontAverages.of(torch.zeros(2, PACKED, dtype=torch.float64)), HORIZON, 2000.0)  # fmt: skip
    model = Online(forecast.config(HORIZON, NetworkConfig(hidden=8, horizon=HORIZON))).eval()
    seen: list[torch.Tensor] = []
    model.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    there = np.isfinite(values[:, :75])
    rows = np.concatenate([np.where(there, values[:, :75], 7.0)[..., None], there[..., None], phases], 2)
    with torch.no_grad():
        model(torch.from_numpy(rows).float().double(), model.initial_state(2))
    assert torch.equal(torch.cat(seen, 1), trained.x)
