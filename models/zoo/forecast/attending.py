"""The recipe ``attending``: encoder-decoder with attention, compared with the forecasters of the recipe ``sequences``.

It is trained on the same batches, for as many steps, and scored on the same months. The loss is taken at a sample of a
segment's readings, since each needs two dozen steps of the decoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.forecast.forecasting import ForecastBatch, ForecastTrainingOptions
from models.forecast.sensors import Sensor, ett, synthetic
from models.training import checkpoint
from models.training.budget import Budget, fit
from models.zoo.forecast.attending_forecaster import AttendingConfig, AttendingForecaster
from models.zoo.forecast.plain import PlainSegments
from models.zoo.forecast.sequence import LAGS
from models.zoo.forecast.sequence import info as said_of
from models.zoo.forecast.sequences import (
    BATCH,
    EPOCH,
    LENGTH,
    POOL,
    SEASON,
    SHARES,
    TRAINED,
    VALIDATED,
    ForecastPool,
    Held,
    SequenceTraining,
    held_out,
    list_of,
    loss,
    naive,
    rows_of,
    score,
)
from models.zoo.generate.teaching import leave

STEPS = 900
#: Number of readings of a segment at which the loss is taken.
SAMPLED = 24
NAME = "forecast-attending"


class Attending(SequenceTraining):
    def training_step(self, batch: ForecastBatch, index: int) -> Tensor:
        at = LAGS + torch.randperm(batch.x.shape[1] - LAGS)[:SAMPLED]
        moves, _, _ = self.model.attend(batch.x, self.model.memory(len(batch.x)), at)
        part = ForecastBatch(batch.x, batch.labels[:, at], batch.known[:, at])
        value = loss(moves, part, self.model.config.quantiles, skip=0)
        self.losses.append(float(value.detach()))
        return value


def train(folder: Path, minutes: float | None = None) -> Path:
    """Train, score, draw ``folder/attending.png``, and return the path of the best checkpoint. Raises
    ``FileNotFoundError`` if the shared data is missing."""
    held = held_out(TRAINED, VALIDATED), held_out(VALIDATED, VALIDATED + TRAINED // 3)
    sensors = [*ett("ETTh1", 0, TRAINED), *ett("ETTh2", 0, TRAINED), *synthetic(200)]
    budget = Budget(minutes=minutes or 0.0, steps=0 if minutes else STEPS, rate=3e-3, average=0.98)
    return learn(sensors, SHARES, *held, folder, budget)


def learn(
    sensors: list[Sensor], shares: dict[str, float], validation: Held, test: Held, folder: Path, budget: Budget,
    config: AttendingConfig | None = None, batch: int = BATCH, length: int = LENGTH,
) -> Path:  # fmt: skip
    """As :func:`train`, on other data: ``validation`` picks the best average, ``test`` gives the scores."""
    options = ForecastTrainingOptions(batch=batch, length=length)
    config = config or AttendingConfig()
    pool = list_of(PlainSegments(sensors, shares, config.horizon, options), min(POOL, budget.steps or POOL))
    torch.manual_seed(1)
    model = AttendingForecaster(config)

    def save(path: Path, average: Any, about: dict[str, object]) -> None:
        checkpoint.save(path, average, info(average.config) | about)

    training = Attending(model, budget, lambda average: {"error": score(average, validation)["MAE"]}, save, folder)
    fit(training, ForecastPool(pool, min(EPOCH, budget.steps or EPOCH)))
    best, _ = checkpoint.load(folder / "best.pt")
    found = score(best, test) | naive(test)
    leave(folder, {f"{name}, {config.horizon} hours": value for name, value in found.items()})
    draw(looks(best, test), folder / "attending.png")
    return folder / "best.pt"


def info(config: AttendingConfig) -> dict[str, Any]:
    text = (
        f"Forecasts a sensor {config.horizon} readings ahead: encoder-decoder of GRUs, {config.hidden} wide, with "
        f"attention to the last {config.slots} readings."
    )
    return said_of("gru", config) | {"name": NAME, "description": text}


@torch.no_grad()
def looks(model: AttendingForecaster, held: Held, last: int = 240) -> NDArray[np.float32]:
    """The mean attention [H, M] of the ``last`` readings."""
    x = torch.from_numpy(rows_of(held.values[:, -(held.first + last) :]))
    outputs, _ = model(x, model.initial_state(len(x)))
    return outputs["attention"][:, -last:].mean((0, 1)).numpy()


def draw(weights: NDArray[np.float32], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    horizon, slots = weights.shape
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    extent = (-slots + 0.5, 0.5, horizon + 0.5, 0.5)
    picture = axes.imshow(weights, aspect="auto", extent=extent, cmap="magma", interpolation="nearest")
    axes.plot([1 - SEASON, horizon - SEASON], [1, horizon], "--", color="white", linewidth=0.8, label="a day before")
    axes.set(xlabel="reading looked at, hours before the last one", ylabel="hours ahead")
    axes.set_title("ETTh1: what each step of the forecast looks at, on average")
    axes.legend(loc="lower left", fontsize=8)
    figure.colorbar(picture, label="share of the attention")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
