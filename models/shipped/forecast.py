"""The recipe of the universal forecaster: a network trained on many sensors, in a model that adapts to each stream."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from models.forecast import sensors
from models.forecast.forecasting import ForecastBatch, ForecastTraining, ForecastTrainingOptions, Segments, loss
from models.forecast.network import Network, NetworkConfig
from models.forecast.online import Expert, Online, OnlineConfig, info
from models.speech.acoustic import parameters
from models.training import checkpoint
from models.training.budget import fit

#: Shares of the training examples, by source.
SHARES = {"ETTh2": 0.15, "ETTm1": 0.25, "exchange": 0.08, "beijing": 0.25, "occupancy": 0.05, "synthetic": 0.22}
DATA = (
    "ETTh2 and ETTm1 (first four of twenty months), exchange rates (first fifth), six stations of Beijing's air, one "
    "office's occupancy (training file); synthetic processes"
)
LICENCE = "Apache-2.0; trained on: ETDataset CC BY-ND 4.0, UCI data sets, exchange rates without a licence"
DESCRIPTION = (
    "Forecasts any sensor: a recurrent network that was trained on many, and linear experts fitted to each stream "
    "while it runs, hedged, with calibrated quantiles, anomaly probabilities and drift."
)


def config(horizon: int = 48, network: NetworkConfig | None = None) -> OnlineConfig:
    experts = (Expert(24, 0.999, 1), Expert(3, 0.9995, 1), Expert(96, 0.9999, 2))
    return OnlineConfig(horizon=horizon, experts=experts, network=network or NetworkConfig())


def skill(network: Network, batch: ForecastBatch, skip: int) -> float:
    """1 - the network's loss over that of persistence."""
    with torch.no_grad():
        (_, change), _ = network(batch.x, network.initial_state(len(batch.x)))
        return 1 - float(loss(change, batch, skip)) / float(loss(torch.zeros_like(change), batch, skip))


def train(
    folder: Path,
    options: ForecastTrainingOptions,
    family: str,
    *,
    seed: int = 1,
    warm: Path | None = None,
    resume: bool = False,
) -> Path:
    """Train a network of ``family`` and write the whole model to ``folder/best.pt``; returns that path. ``warm``: a
    checkpoint to start from. Raises ``FileNotFoundError`` if data are missing or there is nothing to resume."""
    lightning.seed_everything(seed, verbose=False)
    network = Network(NetworkConfig(family=family))
    if warm:
        network.load_state_dict(checkpoint.load(warm)[0].network.state_dict())
    horizon = network.config.horizon
    batches = Segments(sensors.training(), SHARES, horizon, options, seed)
    later = sensors.validation()
    even = dict.fromkeys({sensor.source for sensor in later}, 1.0)
    held = Segments(later, even, horizon, dataclasses.replace(options, batch=96), seed=2).batch()

    def evaluate(network: Network) -> dict[str, float]:
        found = skill(network, held, options.skip)
        return {"error": 1 - found, "skill": found}

    def save(path: Path, network: Network, about: dict[str, Any]) -> None:
        model = Online(config(network=network.config))
        model.network.load_state_dict(network.state_dict())
        texts = {"data": DATA, "licence": LICENCE, "description": DESCRIPTION}
        checkpoint.save(path, model, info("forecast-universal", model.config) | texts | about)

    training = ForecastTraining(network, options, evaluate, save, folder)
    print(
        f"{parameters(network) / 1e3:.0f} k parameters, {len(batches.sensors)} sensors, "
        f"{np.sum([len(s.values) for s in batches.sensors]) / 1e6:.1f} M readings"
    )
    fit(training, batches, resume=resume)
    return folder / "best.pt"
