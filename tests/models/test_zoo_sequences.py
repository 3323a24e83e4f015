"""Forecasters of seven bodies: what they are trained on is what they see, they keep the laws, the daemon runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.replay import clocks, replay, rows
from export.build import build
from models.forecast.forecasting import ForecastTrainingOptions
from models.forecast.normalise import Averages
from models.forecast.sensors import Sensor
from models.training import checkpoint
from models.zoo.forecast import sequences
from models.zoo.forecast.plain import PlainSegments, prepare
from models.zoo.forecast.sequence import FAMILIES, LAYERS, SequenceConfig, SequenceForecaster, body, info, sized
from models.zoo.forecast.sequence_pictures import curves, depths, draw_depth
from streamer.engine.model import Model
from streamer.tasks import Forecast
from tests.models.laws import assert_close, check_company, settle

pytestmark = pytest.mark.long

HORIZON, DAY = 24, 24


def small(family: str, seed: int = 0) -> SequenceForecaster:
    """Of a few units, with a head that says something."""
    torch.manual_seed(seed)
    model = SequenceForecaster(SequenceConfig(family, 8, window=12))
    torch.nn.init.normal_(model.head.weight, std=0.3)
    settle(model)
    return model


def waves(count: int, length: int) -> list[Sensor]:
    """Daily rhythms of their own with a little noise."""
    rng = np.random.default_rng(count)
    hours = np.arange(length)
    return [
        Sensor("waves", (20 + 5 * np.sin(2 * np.pi * (hours / DAY + rng.random())) + rng.normal(0, 0.2, length)).astype(
            np.float32), 3600.0) for _ in range(count)
    ]  # fmt: skip


def readings(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    values = 50 + np.cumsum(rng.normal(size=(batch, length)), 1)
    clock = np.arange(length) * 3600.0
    there = rng.random((batch, length)) > 0.1
    parts = [rows(np.where(t, v, np.nan), clocks(clock)) for v, t in zip(values, there, strict=True)]
    return torch.from_numpy(np.stack(parts)).float()


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_any_split_and_any_company(family: str) -> None:
    model = small(family)
    x = readings(2, 40)
    whole, after = model(x, model.initial_state(2))
    state, means = model.initial_state(2), []
    for piece in x.split([1, 1, 20, 5, 13], 1):
        said, state = model(piece, state)
        means.append(said["mean"])
    assert_close(torch.cat(means, 1), whole["mean"])
    assert all(torch.allclose(state[name], after[name], rtol=1e-4, atol=1e-4) for name in after)
    assert (whole["quantiles"].diff(dim=3) >= 0).all()
    assert (whole["quantiles"][:, 5:].diff(dim=3) > 0).all()  # the pace is known by then
    check_company(Means(model), x, lambda row: torch.full_like(row, float("nan")))


class Means(SequenceForecaster):
    """The mean alone, for laws that know one output."""

    def __init__(self, model: SequenceForecaster) -> None:
        torch.nn.Module.__init__(self)
        self.model = model

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return self.model.initial_state(batch)

    def forward(self, x: torch.Tensor, state: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        said, state = self.model(x, state)
        return said["mean"], state


@torch.no_grad()
def test_what_is_trained_on_is_what_it_sees() -> None:
    model = small("gru")
    x = readings(2, 60)
    values = torch.where(x[..., 1] > 0, x[..., 0], torch.nan)
    start = Averages(*torch.zeros(len(Averages._fields), 2))
    prepared = prepare(torch.cat([values, torch.full((2, HORIZON), torch.nan)], 1), x[..., 2:], start, HORIZON, 2000.0)
    taught, _ = model.moves(prepared.x, model.memory(2))
    run, _ = model(x, model.initial_state(2))
    pace = (run["mean"] - last_of(x)[..., None]) / taught[..., 0]
    later = slice(HORIZON, None)
    assert torch.allclose(pace[:, later], pace[:, later, :1].expand(-1, -1, HORIZON), rtol=1e-2)  # one for all steps
    # a label in units of that pace is the reading that came
    ahead = torch.stack([values.roll(-h, 1) for h in range(1, HORIZON + 1)], 2)
    error = ahead - (last_of(x)[..., None] + pace.median(2, keepdim=True).values * prepared.labels)
    known = prepared.known[:, later]
    assert known.sum() > 500
    assert float(error[:, later][known].abs().max()) < 0.01


def last_of(x: torch.Tensor) -> torch.Tensor:
    """[B, T] the last reading that was there."""
    out, last = [], torch.zeros(len(x))
    for t in range(x.shape[1]):
        last = torch.where(x[:, t, 1] > 0, x[:, t, 0], last)
        out.append(last)
    return torch.stack(out, 1)


@torch.no_grad()
def test_the_last_day_goes_straight_to_the_answer() -> None:
    """With a linear map that says "as a day ago", so does the model."""
    model = small("linear")
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    # step h is what it was 24 - h readings before the last: for the last step, the last reading itself
    model.direct.weight.copy_(torch.diag(torch.ones(HORIZON - 1), 1))
    hours = np.arange(480)
    values = 20 + 5 * np.sin(2 * np.pi * hours / DAY)
    said, _ = model(torch.from_numpy(rows(values, clocks(hours * 3600.0))).float()[None], model.initial_state(1))
    assert np.allclose(said["mean"][0, -1], values[-DAY:], atol=0.3)


@pytest.mark.parametrize("family", ["tcn", "transformer"])
def test_the_context_is_what_the_body_sees(family: str) -> None:
    layer = settle(body(family, 8, window=12)).eval()
    field = layer.receptive_field
    assert field is not None
    x = torch.randn(1, field + 30, 8, requires_grad=True)
    y, _ = layer(x, layer.initial_state(1))
    y[:, -1].square().sum().backward()
    assert x.grad is not None
    reached = x.grad.abs().sum((0, 2)).nonzero().flatten()
    assert x.shape[1] - int(reached.min()) == field


def test_bodies_are_about_as_large() -> None:
    sizes = [sum(weight.numel() for weight in sized(family, 40_000).parameters()) for family in FAMILIES]
    assert max(sizes) <= 40_000
    assert min(sizes) > 36_000
    with pytest.raises(ValueError, match="one of linear, rnn"):
        body("hmm", 8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe on rhythms of its own: a few steps of every family."""
    folder = tmp_path_factory.mktemp("sequences")
    values = np.stack([sensor.values for sensor in waves(2, 200)])
    held = sequences.Held(values, 100, values.std(1))
    sensors = waves(6, 400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "draw_gradients", lambda path: None)  # these have tests of their own
        patch.setattr(sequences, "scans", lambda: "")
        patch.setattr(sequences, "depths", lambda: {"plain": [1.0, 0.9], "residual": [1.0, 0.5]})
        sequences.learn(
            sensors, {"waves": 1.0}, {"validation": held, "test": held}, folder, 1.0,
            steps=8, parameters=6000, batch=8, length=60,
        )  # fmt: skip
    return folder


@pytest.mark.filterwarnings("ignore")  # Lightning's own
@pytest.mark.parametrize("family", FAMILIES)
def test_it_trains_is_judged_and_forecasts(family: str, trained: Path, tmp_path: Path) -> None:
    model, about = checkpoint.load(trained / f"forecast-{family}" / "best.pt")
    assert model.config.family == family
    assert (trained / f"forecast-{family}" / "scores.json").exists()
    path = tmp_path / f"{family}.onnx"
    assert build(model, about | {"scores": {}}, path, max_batch=4, long_chunks=60).ok
    assert Model.load(path).manifest.provenance.parameters == sum(weight.numel() for weight in model.parameters())
    values = waves(1, 50)[0].values.astype(np.float64)
    fed = rows(values, clocks(np.arange(50) * 3600.0))
    told: dict[int, Forecast] = {}
    replay(path, [fed, fed[:20]], lambda number, row, event: told.update({row: event} if number == 0 else {}))
    with torch.no_grad():
        want, _ = model(torch.from_numpy(fed).float()[None], model.initial_state(1))
    assert len(told) == 50
    for row in (0, 19, 49):
        assert np.allclose(told[row].mean, want["mean"][0, row], rtol=1e-4, atol=1e-3)
        assert set(told[row].quantiles) == {"0.1", "0.5", "0.9"}


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_table_has_a_row_for_each(trained: Path) -> None:
    lines = (trained / "table.md").read_text().splitlines()
    assert [line for line in lines if line.startswith(("| rnn ", "| mingru ", "| persistence ", "| as a day ago "))]
    assert len([line for line in lines if line.startswith("|")]) == 2 + len(LAYERS) + 2
    assert (trained / "zoo-depth.png").stat().st_size > 10_000


def test_scans_are_timed_at_each_length() -> None:
    lines = sequences.scans((3, 5), width=4, rounds=1).splitlines()
    assert lines[2] == "| layer | 3 steps | 5 steps |"
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["LSTM", "GRU", "minGRU, scan", "minGRU, step by step"]
    assert all(float(cell) >= 0 for line in lines[4:] for cell in line.split("|")[2:4])


def test_what_one_has_without_a_model() -> None:
    hours = np.arange(200, dtype=np.float32)
    held = sequences.Held(np.stack([np.sin(2 * np.pi * hours / DAY), hours]).astype(np.float32), 100, np.ones(2))
    truth, at = sequences.truths(held)
    assert truth[1, 0].tolist() == [*range(100, 124)]
    assert held.values[1, at][0] == 99
    assert held.values[1, at][-1] == 175
    assert truth[1, -1, -1] == 199
    found = sequences.naive(held)
    line = np.arange(1, 25).mean()  # how far a straight line has gone, on average
    sine = np.abs(held.values[0, at, None] - truth[0]).mean()
    assert found["MAE, persistence"] == pytest.approx((line + sine) / 2, rel=1e-5)
    assert found["MAE, as a day ago"] == pytest.approx(DAY / 2, rel=1e-4)


def test_a_forecast_without_error_costs_nothing() -> None:
    options = ForecastTrainingOptions(batch=4, length=60)
    batch = PlainSegments(waves(3, 300), {"waves": 1.0}, HORIZON, options).batch()
    perfect = batch.labels[..., None].expand(-1, -1, -1, 4)
    assert float(sequences.loss(perfect, batch, (0.1, 0.5, 0.9))) == 0
    low, high = perfect.clone(), perfect.clone()
    low[..., 3] -= 1  # the 90 % quantile below the truth costs nine times what one above costs
    high[..., 3] += 1
    ratio = float(sequences.loss(low, batch, (0.1, 0.5, 0.9)) / sequences.loss(high, batch, (0.1, 0.5, 0.9)))
    assert ratio == pytest.approx(9, rel=0.05)


def test_gradients_vanish_explode_and_are_clipped() -> None:
    norms = [*curves().values()]
    vanilla, exploding, clipped, lstm, gru, mingru = (one[-1] / one[0] for one in norms)
    assert vanilla < 1e-15
    assert exploding > 1e3
    assert clipped == pytest.approx(exploding)
    assert gru < 1e-15
    assert lstm > 1e-3
    assert mingru > 1e-3
    assert norms[2].max() < 1 < norms[1].max()


def test_info_says_what_a_body_sees() -> None:
    assert "last 128 readings" in info("tcn", SequenceConfig("tcn", 8))["description"]
    assert "without end" in info("gru", SequenceConfig("gru", 8))["description"]


def test_eight_layers_learn_where_they_are_added_to_their_input() -> None:
    found = depths(steps=120)
    assert np.mean(found["plain"][-20:]) > 0.68
    assert np.mean(found["residual"][-20:]) < 0.3


def test_a_picture_of_short_curves(tmp_path: Path) -> None:
    draw_depth({"plain": [1.0, 0.9], "residual": [1.0, 0.5]}, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").exists()
