"""Training examples from a table: random windows of rows, whose labels are all within one part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.forecast.forecasting import ForecastBatch, ForecastTrainingOptions
from models.forecast.normalise import LIMIT
from models.forecast.table import TablePart

__all__ = ["Material", "TableWindows", "WindowOptions", "examples", "held"]

#: The most windows of an evaluation.
HELD = 64


@dataclass(frozen=True)
class WindowOptions(ForecastTrainingOptions):
    """``offset``: deviation of the random offset of levels, in deviations of the training rows; ``lost``: share of the
    sensors that are masked in a window."""

    minutes: float = 5.0
    rate: float = 2e-3
    batch: int = 32
    length: int = 256
    batches: int = 40
    offset: float = 0.5
    lost: float = 0.05


class Material(NamedTuple):
    """All rows of a table. ``inputs`` [N, X]: the network's input: levels of all ``columns``, then their steps, then
    their freshness, then the clock; ``levels`` [N, K]: the targets, in deviations, and ``there`` [N, K] bool, where
    they have a reading; ``pace`` [K]; ``stretches`` [N]: a row and its label are of the same stretch."""

    inputs: Tensor
    levels: Tensor
    there: Tensor
    pace: Tensor
    stretches: Tensor
    columns: int


def examples(material: Material, part: TablePart, firsts: Tensor, length: int, horizon: int) -> ForecastBatch:
    """Windows of ``length`` rows that begin at ``firsts`` [B]. A label is known if its row is in this part."""
    rows = firsts[:, None] + torch.arange(length)  # [B, T]
    ahead = rows[..., None] + torch.arange(1, horizon + 1)  # [B, T, H]
    inside = (ahead < part.end) & (rows[..., None] >= part.first)
    ahead, rows = ahead.clamp(max=part.end - 1), rows.clamp(max=part.end - 1)
    inside &= material.stretches[ahead] == material.stretches[rows][..., None]
    known = inside[..., None] & material.there[ahead] & material.there[rows][:, :, None]  # [B, T, H, K]
    labels = (material.levels[ahead] - material.levels[rows][:, :, None]) / material.pace
    reach = torch.arange(1, horizon + 1).sqrt()[:, None]
    labels = labels.clamp(-LIMIT * reach, LIMIT * reach)
    return ForecastBatch(material.inputs[rows], *(tensor.transpose(2, 3).flatten(2) for tensor in (labels, known)))


def held(material: Material, part: TablePart, options: ForecastTrainingOptions, horizon: int) -> ForecastBatch:
    """Consecutive windows for an evaluation; evenly spaced ones if there are too many. Their first ``options.skip``
    rows, which have no loss, overlap the window before."""
    wanted = np.arange(part.first, max(part.first + 1, part.end - horizon), options.length - options.skip)
    chosen = wanted[np.unique(np.linspace(0, len(wanted) - 1, min(HELD, len(wanted))).round().astype(int))]
    return examples(material, part, torch.from_numpy(chosen - options.skip), options.length, horizon)


class TableWindows(torch.utils.data.IterableDataset[ForecastBatch]):
    """Random windows of one part."""

    def __init__(
        self, material: Material, part: TablePart, horizon: int, options: WindowOptions, seed: int = 1
    ) -> None:
        self.material, self.part, self.horizon, self.options = material, part, horizon, options
        #: Windows begin before this row.
        self.behind = max(part.first + 1, part.end - horizon - options.length // 2)
        self.rng = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[ForecastBatch]:
        for _ in range(self.options.batches):
            yield self.batch()

    def batch(self, firsts: Tensor | None = None) -> ForecastBatch:
        """Windows at ``firsts`` [B], by default at random rows. Levels get random offsets and random sensors are
        masked: a table of a year has few different levels, and a network that memorises them fails in the next year.
        """
        options, rng = self.options, self.rng
        if firsts is None:
            firsts = torch.from_numpy(rng.integers(self.part.first, self.behind, options.batch))
        batch = examples(self.material, self.part, firsts, options.length, self.horizon)
        shape = (len(firsts), 1, self.material.columns)
        off = torch.from_numpy(options.offset * rng.standard_normal(shape)).float()
        there = torch.from_numpy(rng.random(shape) >= options.lost).float()
        level, rest = batch.x.split([shape[2], batch.x.shape[2] - shape[2]], 2)
        step, fresh, clock = rest.split([shape[2], shape[2], rest.shape[2] - 2 * shape[2]], 2)
        return batch._replace(x=torch.cat([(level + off) * there, step * there, fresh * there, clock], 2))
