"""Trains a forecaster's network on segments of many sensors' streams, with Lightning; every reading has a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from models.forecast.front import PACKED, FrontAverages, follow, pace_of
from models.forecast.network import inputs
from models.forecast.normalise import LIMIT, waves
from models.forecast.sensors import DAY, WEEK, Sensor
from models.training.budget import Budget, Budgeted


@dataclass(frozen=True)
class ForecastTrainingOptions(Budget):
    minutes: float = 20.0
    rate: float = 3e-3
    batch: int = 64  # segments
    length: int = 400  # readings of a segment
    skip: int = 16  # first readings of a segment, which have no loss
    memory: float = 2000.0  # readings over which level and scale are averaged, as in the model of the network
    batches: int = 150  # from one evaluation to the next


class ForecastBatch(NamedTuple):
    """``x`` [B, T, 5 + clock], ``labels`` [B, T, H] in units of the pace, ``known`` [B, T, H] bool."""

    x: Tensor
    labels: Tensor
    known: Tensor


class Segments(torch.utils.data.IterableDataset[ForecastBatch]):
    """Random segments of the sensors; half of them start as new streams, the others with the averages of the readings
    before. ``shares``: of the examples, by source; sensors of one source are equally likely. The clock is shifted at
    random, so that the network does not learn the time of day of its training sensors' peaks."""

    def __init__(
        self,
        sensors: list[Sensor],
        shares: dict[str, float],
        horizon: int,
        options: ForecastTrainingOptions,
        seed: int = 1,
    ) -> None:
        self.sensors, self.horizon, self.options = sensors, horizon, options
        count = {source: sum(s.source == source for s in sensors) for source in shares}
        weights = np.array([shares[s.source] / count[s.source] for s in sensors])
        self.weights = weights / weights.sum()
        self.rng = np.random.default_rng(seed)
        self.levels = self.histories()

    def __iter__(self) -> Iterator[ForecastBatch]:
        for _ in range(self.options.batches):
            yield self.batch()

    def batch(self) -> ForecastBatch:
        options, rng = self.options, self.rng
        reach = options.length + self.horizon
        values = np.full((options.batch, reach), np.nan, np.float32)
        phases = np.zeros((options.batch, options.length, 2), np.float32)
        start = self.levels[0].new_zeros(options.batch, self.levels[0].shape[1])
        signs = np.ones(options.batch, np.float32)
        for row, index in enumerate(rng.choice(len(self.sensors), options.batch, p=self.weights)):
            sensor = self.sensors[int(index)]
            first = int(rng.integers(max(1, len(sensor.values) - options.length // 2)))
            piece = sensor.values[first : first + reach]
            values[row, : len(piece)] = piece
            clock = sensor.start + (first + np.arange(options.length)) * sensor.step + rng.uniform(0, WEEK)
            phases[row, :, 0], phases[row, :, 1] = clock / DAY % 1, clock / WEEK % 1
            if rng.random() < 0.5:
                start[row] = self.levels[int(index)][first]
            if rng.random() < 0.5:  # upside down
                signs[row] = -1
        whole = torch.from_numpy(values * signs[:, None])
        return self.prepared(whole, torch.from_numpy(phases), start, torch.from_numpy(signs))

    def histories(self) -> list[Tensor]:
        """For each sensor the packed averages before every reading, [N, P]."""
        return histories(self.sensors, self.options.memory)

    def prepared(self, values: Tensor, phases: Tensor, start: Tensor, signs: Tensor) -> ForecastBatch:
        """The batch of ``values`` [B, T + H] with NaN and ``phases`` [B, T, 2]. ``start`` [B, P]: the packed averages
        before the first reading, not yet multiplied by ``signs`` [B]."""
        before = FrontAverages.of(start).turned(signs[:, None].double())
        return prepare(values, phases, before, self.horizon, self.options.memory)


def histories(sensors: list[Sensor], memory: float) -> list[Tensor]:
    """For each sensor the packed :class:`FrontAverages` before every reading, [N, PACKED]."""
    longest = max(len(sensor.values) for sensor in sensors)
    values = torch.full((len(sensors), longest), float("nan"), dtype=torch.float64)
    for row, sensor in zip(values, sensors, strict=True):
        row[: len(sensor.values)] = torch.from_numpy(sensor.values)
    now = torch.zeros(len(sensors), PACKED, dtype=torch.float64)
    out = torch.zeros(longest, *now.shape, dtype=torch.float64)
    for t in range(longest):
        out[t] = now
        reading = values[:, t, None]
        now = follow(reading.nan_to_num(), (~reading.isnan()).double(), FrontAverages.of(now), memory).after.packed()
    return [out[: len(sensor.values), i] for i, sensor in enumerate(sensors)]


def prepare(values: Tensor, phases: Tensor, before: FrontAverages, horizon: int, memory: float) -> ForecastBatch:
    """The batch of ``values`` [B, T + H] with NaN and ``phases`` [B, T, 2]. ``before`` [B, 1] each: the averages before
    the first reading. Readings in doubt are neither origins nor labels."""
    length = phases.shape[1]
    values = values.double()
    there = (~values.isnan()).double()
    beat = waves(phases)
    rows, held, paces, sure = [], [], [], []
    now = before
    for t in range(values.shape[1]):
        found = follow(values[:, t, None].nan_to_num(), there[:, t, None], now, memory)
        now = found.after
        sure.append(found.sure)
        if t < length:
            rows.append(inputs(found, beat[:, t], memory))
            held.append(now.last)
            paces.append(pace_of(now.squares, found.scale))
    base, pace, known = torch.stack(held, 1), torch.stack(paces, 1), torch.cat(sure, 1) > 0
    ahead = values.unfold(1, horizon, 1)[:, 1 : length + 1]  # [B, T, H]
    reach = torch.arange(1, horizon + 1).sqrt()
    labels = ((ahead - base) / pace).float().clamp(-LIMIT * reach, LIMIT * reach)
    known = known.unfold(1, horizon, 1)[:, 1 : length + 1] & known[:, :length, None] & ~labels.isnan()
    return ForecastBatch(torch.stack(rows, 1), labels.nan_to_num(), known)


def loss(change: Tensor, batch: ForecastBatch, skip: int) -> Tensor:
    """Huber loss of the errors, in units of the sensor's usual move over as many steps, so that all sensors, steps and
    units weigh alike. ``change`` [B, T, H]: forecast moves, in units of the pace."""
    labels, known = batch.labels[:, skip:], batch.known[:, skip:].float()
    number = known.sum(1).clamp(min=1.0)
    moves = ((labels.square() * known).sum(1) / number).sqrt().clamp(min=0.1)[:, None]
    errors = nn.functional.huber_loss(change[:, skip:] / moves, labels / moves, reduction="none", delta=3.0)
    return (errors * known).sum() / known.sum().clamp(min=1.0)


class ForecastTraining(Budgeted):
    """The training of one network."""

    options: ForecastTrainingOptions

    def training_step(self, batch: ForecastBatch, index: int) -> Tensor:
        (_, change), _ = self.model(batch.x, self.model.initial_state(len(batch.x)))
        value = loss(change, batch, self.options.skip)
        self.losses.append(float(value.detach()))
        return value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        options = self.options
        return torch.optim.AdamW(
            self.model.parameters(), lr=options.rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
        )
