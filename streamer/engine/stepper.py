"""Steps a batch of streams of a model in the caller's thread: chunks in, outputs out, states kept in between.

For running a model without an engine: commands, evaluation, benches, tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.engine.model import Model

__all__ = ["Stepper"]

Arrays = dict[str, NDArray[Any]]


class Stepper:
    """``batch`` streams that step together. ``conditions`` [batch, *shape] by name; zeros for omitted ones.

    ``states``: [batch, *shape] by input name. They may be read, and set to states of a stepper of the same model.
    """

    def __init__(self, model: Model, batch: int = 1, conditions: Mapping[str, NDArray[Any]] | None = None) -> None:
        self.model, self.batch = model, batch
        self._conditions = {c.name: np.zeros((batch, *c.shape), c.dtype) for c in model.manifest.conditions}
        given = dict(conditions or {})
        if strange := sorted(set(given) - set(self._conditions)):
            known = ", ".join(self._conditions) or "none"
            raise ValueError(f"{model.manifest.name} has no condition {strange[0]!r}; there is {known}")
        for name, array in given.items():
            self._conditions[name] = np.ascontiguousarray(np.broadcast_to(array, self._conditions[name].shape))
        self.states: Arrays = {}
        self.reset()

    @property
    def manifest(self) -> Manifest:
        return self.model.manifest

    def reset(self) -> None:
        """Set every state to zeros."""
        self.states = self.model.zero_state(self.batch)

    def step(self, rows: Mapping[str, NDArray[Any]] | NDArray[Any]) -> Arrays:
        """One chunk of every stream, [batch, *chunk_shape]: by input name, or as it is where there is one input.

        All outputs of the graph, new states included, [batch, ...]. Raises what the runtime raises for another shape
        or dtype; the states are then what they were.
        """
        chunk = dict(rows) if isinstance(rows, Mapping) else {self.manifest.input.name: rows}
        outputs = self.model.run({**chunk, **self._conditions, **self.states})
        self.states = self.manifest.carry(outputs)
        return outputs
