"""Preparation of a table of sensors for training: parts, columns, scaling, examples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from models.forecast.backtest import season
from models.forecast.columns import Choice, choose
from models.forecast.forecasting import ForecastBatch
from models.forecast.multivariate import Multivariate, MultivariateConfig, Scaling
from models.forecast.network import NetworkConfig
from models.forecast.table import RawTable, Table, TablePart, arrange, needed, split
from models.forecast.windows import Material, TableWindows, WindowOptions, held

FARTHEST = 1000
#: The most rows of a day for which "as a day ago" is an expert, since the state holds all of them.
DAY = 288


@dataclass(frozen=True)
class Wanted:
    """The user's request. ``targets``: columns to forecast, empty for all; ``without``: columns to leave out. Raises
    ``ValueError`` for a ``horizon`` outside of 1 to 1000 rows."""

    horizon: int = 24
    targets: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    family: str = "gru"

    def __post_init__(self) -> None:
        if not 1 <= self.horizon <= FARTHEST:
            raise ValueError(f"--horizon is {self.horizon}: rows ahead, 1 to {FARTHEST}")


@dataclass(frozen=True)
class Plan:
    """Everything derived from a table before training. Properties raise ``ValueError`` if the table is unusable."""

    raw: RawTable
    wanted: Wanted = field(default_factory=Wanted)
    options: WindowOptions = field(default_factory=WindowOptions)

    @property
    def horizon(self) -> int:
        return self.wanted.horizon

    @cached_property
    def table(self) -> Table:
        """The arranged table, with all columns."""
        if not self.raw.columns:
            raise ValueError(f"{self.raw.name}: has no column of numbers")
        if len(self.raw.times) < needed(self.horizon):
            split(len(self.raw.times), self.horizon)
        return arrange(self.raw.times, self.raw.values)

    @cached_property
    def parts(self) -> dict[str, TablePart]:
        return split(len(self.table.times), self.horizon)

    @cached_property
    def choice(self) -> Choice:
        wanted, training = self.wanted, self.table.values[: self.parts["training"].end]
        return choose(self.raw, training, wanted.targets, wanted.without, self.horizon)

    @property
    def columns(self) -> list[int]:
        return [self.raw.columns.index(name) for name in self.choice.variables]

    @cached_property
    def scaling(self) -> Scaling:
        return Scaling.of(self.table.values[: self.parts["training"].end, self.columns])

    def inputs(self) -> NDArray[np.float32]:
        return self.table.inputs(self.columns)

    def config(self) -> MultivariateConfig:
        variables, targets = self.choice.variables, self.choice.targets
        network = NetworkConfig(self.wanted.family, 3 * len(variables), len(targets), horizon=self.horizon)
        day = season(self.table.step)
        return MultivariateConfig(variables, targets, network, day=day if day <= DAY else 0)

    def model(self) -> Multivariate:
        """An untrained model with the scaling set."""
        model = Multivariate(self.config())
        model.set_scaling(self.scaling)
        return model.eval()

    @cached_property
    def material(self) -> Material:
        model = self.model()
        with torch.no_grad():
            seen, _ = model.see(torch.from_numpy(self.inputs())[None], model.initial_state(1))
        chosen = model.chosen
        there = seen.there[0, :, chosen] > 0
        stretches = torch.from_numpy(self.table.stretches)
        return Material(
            seen.inputs[0], seen.level[0, :, chosen], there, model.pace[chosen], stretches, len(self.columns)
        )

    @cached_property
    def examples(self) -> WindowOptions:
        """The options, with windows no longer than the shortest part."""
        shortest = min(part.end - part.first for part in self.parts.values())
        return replace(self.options, length=max(2 * self.options.skip, min(self.options.length, shortest)))

    def windows(self, seed: int) -> TableWindows:
        return TableWindows(self.material, self.parts["training"], self.horizon, self.examples, seed)

    def held(self) -> ForecastBatch:
        return held(self.material, self.parts["validation"], self.examples, self.horizon)
