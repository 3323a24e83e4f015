"""The recipe ``sequences``: compares all families of forecasters, with equal parameters and equal training steps.

The networks are universal: each training segment's clock is shifted at random, so a sensor's daily pattern must be
found in its past. ``folder/table.md`` is the table, with pictures beside it; ``folder/NAME/best.pt`` is a family's
model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.forecast.forecasting import ForecastBatch, ForecastTrainingOptions
from models.forecast.normalise import LIMIT
from models.forecast.sensors import DAY, WEEK, Sensor, ett, synthetic
from models.layers import MinGRU, Recurrent
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.forecast.plain import PlainSegments
from models.zoo.forecast.sequence import FAMILIES, LAGS, LAYERS, SequenceForecaster, info, sized
from models.zoo.forecast.sequence_pictures import depths, draw_depth, draw_gradients
from models.zoo.generate.teaching import leave

PARAMETERS, MINUTES = 40_000, 14.0
BATCH, LENGTH, POOL, EPOCH = 32, 256, 200, 100
#: Months of 30 days of ETTh1: ends of training, validation and test (the usual split), and the length of the warm-up.
TRAINED, VALIDATED, TESTED, WARM = 12, 16, 20, 1
SHARES = {"ETTh1": 2.0, "ETTh2": 1.0, "synthetic": 1.0}
SEASON = 24  # readings of a day
PIECE = 240  # readings of one call in evaluation; attention over months at once would need gigabytes


@dataclass(frozen=True)
class Held:
    """``values`` [S, N], scored from reading ``first`` on; ``spread`` [S]: the deviations of training, the units of
    errors."""

    values: NDArray[np.float32]
    first: int
    spread: NDArray[np.float32]


class ForecastPool(torch.utils.data.IterableDataset[ForecastBatch]):
    """The same batches in the same order for every model; ``epoch``: batches of an epoch."""

    def __init__(self, batches: Sequence[ForecastBatch], epoch: int) -> None:
        self.batches, self.epoch, self.at = batches, epoch, 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        for _ in range(self.epoch):
            yield self.batches[self.at % len(self.batches)]
            self.at += 1


class SequenceTraining(Budgeted):
    """Training. Loss: Huber of the mean and pinball of the quantiles, in units of the sensor's usual move over as many
    steps."""

    def training_step(self, batch: ForecastBatch, index: int) -> Tensor:
        moves, _ = self.model.moves(batch.x, self.model.memory(len(batch.x)))
        value = loss(moves, batch, self.model.config.quantiles)
        self.losses.append(float(value.detach()))
        return value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def loss(moves: Tensor, batch: ForecastBatch, quantiles: Sequence[float], skip: int = LAGS) -> Tensor:
    """The loss of ``moves`` [B, T, H, 1 + Q], without the first ``skip`` readings of each segment."""
    labels, known = batch.labels[:, skip:], batch.known[:, skip:].float()
    usual = ((labels.square() * known).sum(1) / known.sum(1).clamp(min=1)).sqrt().clamp(min=0.1)[:, None]  # [B, 1, H]
    errors = ((labels[..., None] - moves[:, skip:]) / usual[..., None]).clamp(-LIMIT, LIMIT)
    levels = torch.tensor(quantiles)
    pinball = torch.maximum(levels * errors[..., 1:], (levels - 1) * errors[..., 1:]).mean(3)
    each = F.huber_loss(errors[..., 0], torch.zeros_like(labels), reduction="none") + pinball
    return (each * known).sum() / known.sum().clamp(min=1)


def train(folder: Path, minutes: float | None = None) -> None:
    """Train and score all families. ``minutes``: for all together; determines the number of steps. Raises
    ``FileNotFoundError`` if the shared data is missing."""
    held = {name: held_out(first, behind) for name, first, behind in
            (("validation", TRAINED, VALIDATED), ("test", VALIDATED, TESTED))}  # fmt: skip
    sensors = [*ett("ETTh1", 0, TRAINED), *ett("ETTh2", 0, TRAINED), *synthetic(200)]
    learn(sensors, SHARES, held, folder, minutes or MINUTES)


def held_out(first: int, behind: int) -> Held:
    """Months ``first`` to ``behind`` of ETTh1, with the warm-up before."""
    spread = np.array([sensor.values.std() for sensor in ett("ETTh1", 0, TRAINED)])
    values = np.stack([sensor.values for sensor in ett("ETTh1", first - WARM, behind)])
    return Held(values, WARM * 30 * SEASON, spread)


def learn(
    sensors: list[Sensor], shares: dict[str, float], held: Mapping[str, Held], folder: Path, minutes: float,
    *, steps: int = 0, parameters: int = PARAMETERS, batch: int = BATCH, length: int = LENGTH,
) -> None:  # fmt: skip
    """As :func:`train`, on other data. ``held``: "validation" picks the best average of a run, "test" gives the table.
    ``steps``: a budget instead of ``minutes``."""
    torch.set_num_threads(1)
    options = ForecastTrainingOptions(batch=batch, length=length)
    pool = list_of(PlainSegments(sensors, shares, 24, options), min(POOL, steps or POOL))
    torch.manual_seed(1)
    models = {family: sized(family, parameters) for family in ("linear", *FAMILIES)}
    cost = seconds(models, pool[0])
    steps = steps or max(1, round(60 * minutes / sum(cost.values()) / EPOCH)) * EPOCH
    budget = Budget(steps=steps, rate=3e-3, average=0.98)
    scores = {}
    for family, model in models.items():
        run(family, model, pool, held["validation"], folder / f"forecast-{family}", budget)
        best, _ = checkpoint.load(folder / f"forecast-{family}" / "best.pt")
        scores[family] = score(best, held["test"])
        left = {f"{name}, 24 hours": value for name, value in (scores[family] | naive(held["test"])).items()}
        leave(folder / f"forecast-{family}", left | {"seconds a training step": cost[family]})
    whole = table(models, scores, naive(held["test"]), cost, steps) + "\n" + scans()
    (folder / "table.md").write_text(whole)
    print((folder / "table.md").read_text())
    draw_depth(depths(), folder / "zoo-depth.png")
    draw_gradients(folder / "zoo-gradients.png")
    for family in FAMILIES:
        name = folder / f"forecast-{family}"
        print(f"python -m export {name}/best.pt -o models/zoo/trained/{name.name}.onnx --scores {name}/scores.json")


def list_of(segments: PlainSegments, count: int) -> list[ForecastBatch]:
    return [segments.batch() for _ in range(count)]


def run(
    family: str, model: SequenceForecaster, pool: list[ForecastBatch], held: Held, folder: Path, budget: Budget
) -> None:
    """Train one family; the best checkpoint is ``folder/best.pt``."""

    def save(path: Path, average: SequenceForecaster, about: dict[str, object]) -> None:
        checkpoint.save(path, average, info(family, average.config) | about)

    training = SequenceTraining(model, budget, lambda average: {"error": score(average, held)["MAE"]}, save, folder)
    fit(training, ForecastPool(pool, min(EPOCH, budget.steps)))


def seconds(models: Mapping[str, SequenceForecaster], batch: ForecastBatch, rounds: int = 3) -> dict[str, float]:
    """CPU seconds of one training step, forward and backward, of each model: the best of ``rounds``, in turns."""
    best = dict.fromkeys(models, float("inf"))
    for _ in range(rounds):
        for name, model in models.items():
            begin = time.process_time()
            moves, _ = model.train().moves(batch.x, model.memory(len(batch.x)))
            loss(moves, batch, model.config.quantiles).backward()
            best[name] = min(best[name], time.process_time() - begin)
            model.zero_grad()
    return best


@torch.no_grad()
def score(model: SequenceForecaster, held: Held) -> dict[str, float]:
    """MAE of the median and MSE of the mean over all steps ahead; share of readings between the outer quantiles."""
    state, means, curves = model.initial_state(len(held.values)), [], []
    for piece in torch.from_numpy(rows_of(held.values)).split(PIECE, 1):
        said, state = model(piece, state)
        means.append(said["mean"])
        curves.append(said["quantiles"])
    mean, quantiles = torch.cat(means, 1).numpy(), torch.cat(curves, 1).numpy()
    middle = quantiles[..., quantiles.shape[3] // 2]
    truth, at = truths(held, model.config.horizon)
    inside = (quantiles[:, at, :, 0] <= truth) & (truth <= quantiles[:, at, :, -1])
    return {**errors(held, middle[:, at], mean[:, at], truth), "coverage": float(inside.mean())}


def rows_of(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """A forecaster's input rows [S, N, 4] from hourly readings [S, N], NaN where missing."""
    clock = np.arange(values.shape[1]) * 3600.0
    phases = np.broadcast_to(np.stack([clock / DAY % 1, clock / WEEK % 1], 1), (*values.shape, 2))
    there = np.isfinite(values)
    x = np.concatenate([np.where(there, values, 0)[..., None], there[..., None], phases], 2)
    return x.astype(np.float32)


def truths(held: Held, horizon: int = SEASON) -> tuple[NDArray[np.float32], slice]:
    """The true readings of each forecast [S, N, H], and the slice of the origins."""
    at = slice(held.first - 1, held.values.shape[1] - horizon)
    return np.lib.stride_tricks.sliding_window_view(held.values, horizon, 1)[:, held.first :], at


def errors(
    held: Held, middle: NDArray[np.float32], mean: NDArray[np.float32], truth: NDArray[np.float32]
) -> dict[str, float]:
    spread = held.spread[:, None, None]
    return {
        "MAE": float(np.nanmean(np.abs(middle - truth) / spread)),
        "MSE": float(np.nanmean(np.square((mean - truth) / spread))),
    }


def naive(held: Held) -> dict[str, float]:
    """Scores of the naive forecasts: the last reading, and the reading of the same hour a day before."""
    truth, at = truths(held)
    last = np.broadcast_to(held.values[:, at, None], truth.shape)
    before = np.lib.stride_tricks.sliding_window_view(held.values, SEASON, 1)[:, held.first - SEASON :][
        :, : truth.shape[1]
    ]
    found = {"persistence": errors(held, last, last, truth), "as a day ago": errors(held, before, before, truth)}
    return {f"{metric}, {name}": value for name, one in found.items() for metric, value in one.items()}


def table(
    models: Mapping[str, SequenceForecaster], scores: Mapping[str, Mapping[str, float]], plain: Mapping[str, float],
    cost: Mapping[str, float], steps: int,
) -> str:  # fmt: skip
    """The Markdown table of all families."""
    lines = [
        f"After {steps} steps of {BATCH} segments of {LENGTH} readings; ETTh1, last four months, 24 hours ahead, in "
        "deviations of its training months.",
        "",
        "| body | layers x width | parameters | sees | MAE | MSE | within 10 to 90 % | CPU s a training step |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family, model in models.items():
        size = sum(weight.numel() for weight in model.parameters())
        sees = "no end" if model.context is None else f"{model.context} readings"
        found = scores[family]
        lines.append(
            f"| {'none' if family == 'linear' else family} "
            f"| {LAYERS[family]} x {model.config.hidden} | {size:,} | {sees} | {found['MAE']:.3f} | {found['MSE']:.3f} "
            f"| {found['coverage']:.0%} | {cost[family]:.2f} |"
        )
    for name in ("persistence", "as a day ago"):
        lines.append(f"| {name} | | | | {plain[f'MAE, {name}']:.3f} | {plain[f'MSE, {name}']:.3f} | | |")
    return "\n".join(lines) + "\n"


def scans(lengths: Sequence[int] = (256, 4096), width: int = 48, rounds: int = 3) -> str:
    """A Markdown table of the CPU time of one layer, forward and backward over one stream: the best of ``rounds``."""
    layers = {
        "LSTM": Recurrent("lstm", width, width),
        "GRU": Recurrent("gru", width, width),
        "minGRU, scan": MinGRU(width, width).train(),
        "minGRU, step by step": MinGRU(width, width).eval(),
    }
    lines = [
        f"One layer of {width} units, one stream, forward and backward, CPU ms:",
        "",
        "| layer | " + " | ".join(f"{length} steps" for length in lengths) + " |",
        "| --- |" + " --- |" * len(lengths),
    ]
    for name, layer in layers.items():
        best = dict.fromkeys(lengths, float("inf"))
        for length in lengths:
            x = torch.randn(1, length, width)
            for _ in range(rounds):
                begin = time.process_time()
                layer(x, layer.initial_state(1))[0].square().mean().backward()
                best[length] = min(best[length], time.process_time() - begin)
        lines.append(f"| {name} | " + " | ".join(f"{1000 * best[length]:.1f}" for length in lengths) + " |")
    return "\n".join(lines) + "\n"
