"""The input and output of a forecaster: one value of any sensor, or a row of named variables, some of them targets."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass, field

from streamer.contract.manifest import Manifest
from streamer.tasks.forecast import Forecaster

__all__ = ["RowLayout", "state_layout"]


@dataclass(frozen=True, slots=True)
class RowLayout:
    """``levels``: of the quantiles, ascending, as text (``"0.05"``). ``variables`` and ``targets``: columns of a row,
    and those of them that are forecast; both empty where the model is for one sensor of any kind.

    Arrays of values of N readings are [N] without variables, else [N, C]; arrays about targets are [N] or [N, K].
    """

    horizon: int
    levels: tuple[str, ...]
    quantiles: tuple[float, ...]
    variables: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    #: Indexes of the targets among the variables.
    chosen: tuple[int, ...] = field(default=(0,))

    @classmethod
    def of(cls, task: Forecaster) -> RowLayout:
        options = task.options
        variables, targets = tuple(options.variables), tuple(options.targets)
        chosen = tuple(variables.index(target) for target in targets) or (0,)
        levels, quantiles = tuple(task.levels), tuple(options.quantiles)
        return cls(options.horizon, levels, quantiles, variables, targets, chosen)

    @property
    def width(self) -> int:
        """Values of a reading."""
        return len(self.variables) or 1

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of a reading's values."""
        return (len(self.variables),) if self.variables else ()

    @property
    def each(self) -> tuple[int, ...]:
        """Shape of arrays with one element for each target."""
        return (len(self.targets),) if self.targets else ()

    @property
    def outer(self) -> tuple[str, str, str]:
        """The outer levels, and the one in the middle: 0.05, 0.5 and 0.95, if the model has them."""
        return self.levels[0], self.levels[len(self.levels) // 2], self.levels[-1]


def state_layout(manifest: Manifest, layout: RowLayout) -> str:
    """A digest of the layout of a sensor's state: two versions of a model with the same digest can use each other's
    states."""
    arrays = [(spec.in_, spec.dtype, spec.shape) for spec in manifest.states]
    arrays += [(spec.name, spec.dtype, spec.shape) for spec in manifest.conditions]
    facts = [manifest.name, manifest.task, manifest.row_dtype.str, arrays, astuple(layout)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
