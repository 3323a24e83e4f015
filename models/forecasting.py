"""Training of a forecaster's network on many sensors, with Lightning: segments of streams, a loss at every reading."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from models.network import Network, inputs
from models.normalise import DAY_HARMONICS, LIMIT, WEEK_HARMONICS, harmonics, pace_of, paced, running
from models.sensors import DAY, WEEK, Sensor
from models.training import rate, tensors


@dataclass(frozen=True)
class Options:
    minutes: float = 20.0
    rate: float = 3e-3
    warm: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    batch: int = 64  # segments
    length: int = 400  # readings of a segment
    skip: int = 16  # readings at its beginning that no loss is taken of
    memory: float = 2000.0  # of level and scale, as in the model that the network goes into
    batches: int = 150  # from one evaluation to the next
    threads: int = 1


class Batch(NamedTuple):
    """``x`` [B, T, 5 + clock], ``labels`` [B, T, H] in units of the pace, ``known`` [B, T, H] bool."""

    x: Tensor
    labels: Tensor
    known: Tensor


class Segments(torch.utils.data.IterableDataset[Batch]):
    """Random segments of the sensors, half of them as if the stream began there. ``shares``: of the examples, by
    source; sensors of one source are equally likely. The clock is shifted at random: a network must not know when the
    sun rises over the sensors that it was trained on."""

    def __init__(
        self, sensors: list[Sensor], shares: dict[str, float], horizon: int, options: Options, seed: int = 1
    ) -> None:
        self.sensors, self.horizon, self.options = sensors, horizon, options
        count = {source: sum(s.source == source for s in sensors) for source in shares}
        weights = np.array([shares[s.source] / count[s.source] for s in sensors])
        self.weights = weights / weights.sum()
        self.rng = np.random.default_rng(seed)
        self.levels = histories(sensors, options.memory)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.options.batches):
            yield self.batch()

    def batch(self) -> Batch:
        options, rng = self.options, self.rng
        reach = options.length + self.horizon
        values = np.full((options.batch, reach), np.nan, np.float32)
        phases = np.zeros((options.batch, options.length, 2), np.float32)
        start = torch.zeros(5, options.batch)
        for row, index in enumerate(rng.choice(len(self.sensors), options.batch, p=self.weights)):
            sensor = self.sensors[int(index)]
            first = int(rng.integers(max(1, len(sensor.values) - options.length // 2)))
            piece = sensor.values[first : first + reach]
            values[row, : len(piece)] = piece if rng.random() < 0.5 else -piece
            clock = sensor.start + (first + np.arange(options.length)) * sensor.step + rng.uniform(0, WEEK)
            phases[row, :, 0], phases[row, :, 1] = clock / DAY % 1, clock / WEEK % 1
            if rng.random() < 0.5:
                start[:, row] = self.levels[int(index)][:, first]
                start[1, row] *= 1 if values[row, 0] == piece[0] else -1
        return prepare(torch.from_numpy(values), torch.from_numpy(phases), start, self.horizon, options.memory)


def histories(sensors: list[Sensor], memory: float) -> list[Tensor]:
    """[5, N] for each: count, level, variance, usual distance and mean square difference before every reading."""
    longest = max(len(sensor.values) for sensor in sensors)
    values = torch.full((len(sensors), longest), float("nan"))
    for row, sensor in zip(values, sensors, strict=True):
        row[: len(sensor.values)] = torch.from_numpy(sensor.values)
    count, level, variance, usual, squares, last = torch.zeros(6, len(sensors))
    out = torch.zeros(longest, 5, len(sensors))
    for t in range(longest):
        out[t] = torch.stack([count, level, variance, usual, squares])
        there = (~values[:, t].isnan()).float()
        value = torch.where(there > 0, values[:, t].nan_to_num(), last)
        before = torch.where(count > 0, last, value)
        count, level, variance, usual, scale = running(value, there, count, level, variance, usual, memory)
        squares = paced(value - before, there, count, squares, scale)
        last = value
    return [out[: len(sensor.values), :, i].T for i, sensor in enumerate(sensors)]


def prepare(values: Tensor, phases: Tensor, start: Tensor, horizon: int, memory: float) -> Batch:
    """``values`` [B, T + H] with NaN, ``phases`` [B, T, 2], ``start`` [5, B]: what :func:`histories` has before
    the first."""
    length = phases.shape[1]
    there = (~values.isnan()).float()
    count, level, variance, usual, squares = start
    last = torch.where(count > 0, level, values[:, 0].nan_to_num())
    rows, held, paces = [], [], []
    for t in range(length):
        now = there[:, t]
        value = torch.where(now > 0, values[:, t].nan_to_num(), last)
        count, level, variance, usual, scale = running(value, now, count, level, variance, usual, memory)
        squares = paced(value - last, now, count, squares, scale)
        pace = pace_of(squares, scale)
        plain = [(value - level) / pace, (value - last) / pace, now, count / memory, scale / pace]
        rows.append(torch.stack(plain, 1))
        held.append(value)
        paces.append(pace)
        last = value
    x, base, pace = torch.stack(rows, 1), torch.stack(held, 1), torch.stack(paces, 1)
    waves = torch.cat([harmonics(phases[..., :1], DAY_HARMONICS), harmonics(phases[..., 1:], WEEK_HARMONICS)], -1)
    x = inputs(*x.split(1, -1), waves)
    ahead = values.unfold(1, horizon, 1)[:, 1 : length + 1]  # [B, T, H]
    reach = torch.arange(1, horizon + 1).sqrt()
    labels = ((ahead - base[..., None]) / pace[..., None]).clamp(-LIMIT * reach, LIMIT * reach)
    known = ~labels.isnan() & (there[:, :length, None] > 0)
    return Batch(x, labels.nan_to_num(), known)


def loss(change: Tensor, batch: Batch, skip: int) -> Tensor:
    """Huber's, of errors in units of how far each sensor moves in so many steps: every sensor, step and unit counts
    alike. Also what persistence would get by it, from which 1 - their ratio is the skill."""
    labels, known = batch.labels[:, skip:], batch.known[:, skip:].float()
    number = known.sum(1).clamp(min=1.0)
    moves = ((labels.square() * known).sum(1) / number).sqrt().clamp(min=0.1)[:, None]
    errors = nn.functional.huber_loss(change[:, skip:] / moves, labels / moves, reduction="none", delta=3.0)
    return (errors * known).sum() / known.sum().clamp(min=1.0)


class Training(lightning.LightningModule):
    """``evaluate(network) -> {metric: value}``; the metric "error" picks the best one."""

    def __init__(
        self,
        network: Network,
        options: Options,
        evaluate: Callable[[Network], dict[str, float]],
        save: Callable[[Path, Network, dict[str, Any]], None],
        folder: Path,
    ) -> None:
        super().__init__()
        self.network, self.options, self.evaluate, self.save, self.folder = network, options, evaluate, save, folder
        self.average = copy.deepcopy(network).eval().requires_grad_(False)
        self.spent, self.taken, self.best = 0.0, 0, math.inf
        self._clock = 0.0
        self._losses: list[float] = []

    @property
    def progress(self) -> float:
        return self.spent / (60.0 * self.options.minutes)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        (_, change), _ = self.network(batch.x, self.network.initial_state(len(batch.x)))
        value = loss(change, batch, self.options.skip)
        self._losses.append(float(value.detach()))
        return value

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.network.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay, betas=(0.9, 0.98)
        )

    def on_train_epoch_start(self) -> None:
        self._clock = time.monotonic()

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate(self.progress, self.options)

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        self.taken += 1
        now = time.monotonic()
        self.spent += min(60.0, now - self._clock)
        self._clock = now
        weight = min(self.options.average, (1 + self.taken) / (20 + self.taken))
        with torch.no_grad():
            for mine, theirs in zip(tensors(self.average), tensors(self.network), strict=True):
                mine.lerp_(theirs, 1 - weight)
        self.log("progress", self.progress, prog_bar=True)
        if self.progress >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        scores = self.evaluate(self.average)
        row = {"step": self.taken, "minutes": self.spent / 60, "loss": float(np.mean(self._losses)), **scores}
        self._losses = []
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({key: round(float(value), 6) for key, value in row.items()}) + "\n")
        for name, value in scores.items():
            self.log(name, value, prog_bar=True)
        if scores["error"] <= self.best:
            self.best = scores["error"]
            self.save(self.folder / "best.pt", self.average, {"scores": scores, "minutes": round(self.spent / 60, 1)})

    def on_save_checkpoint(self, document: dict[str, Any]) -> None:
        document["budget"] = {"spent": self.spent, "taken": self.taken, "best": self.best}

    def on_load_checkpoint(self, document: dict[str, Any]) -> None:
        budget = document["budget"]
        self.spent, self.taken, self.best = budget["spent"], budget["taken"], budget["best"]
