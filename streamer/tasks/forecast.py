"""The task ``forecast``: a mean and quantiles for every step of the horizon, after every reading.

All that is learnt and tracked is state of the graph, so a stream's memory here is only how many readings it has had.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from streamer.manifest import Manifest
from streamer.tasks import Event, Forecast, TaskError

__all__ = ["ForecastOptions", "Forecaster", "Memory"]

Level = Annotated[float, Field(gt=0, lt=1)]


class ForecastOptions(BaseModel):
    """``options`` of a manifest whose task is ``forecast``: levels of the quantiles, ascending, and steps ahead."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    quantiles: Annotated[list[Level], Field(min_length=1, max_length=99)]
    horizon: Annotated[int, Field(ge=1, le=4096)]

    @model_validator(mode="after")
    def _ascending(self) -> ForecastOptions:
        if self.quantiles != sorted(set(self.quantiles)):
            raise ValueError("the levels of the quantiles must ascend")
        return self


@dataclass(slots=True)
class Memory:
    readings: int = 0


class Forecaster:
    """Shared by all streams of one model. Outputs: ``mean`` [N, T, H] and ``quantiles`` [N, T, H, Q]; ``anomaly`` and
    ``drift`` [N, T], which a model may leave out."""

    says = ("anomaly", "drift")

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = ForecastOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't forecast: {problems}; export the model again") from error
        horizon, levels = self.options.horizon, len(self.options.quantiles)
        shapes = {output.name: output.shape[1:] for output in manifest.outputs}
        if (shapes.get("mean"), shapes.get("quantiles")) != ((horizon,), (horizon, levels)):
            raise TaskError(
                f"model {manifest.name!r} can't forecast: its outputs are {shapes}, mean [steps, {horizon}] and "
                f"quantiles [steps, {horizon}, {levels}] are needed"
            )
        for name in self.says:
            if shapes.get(name, ()) != ():
                raise TaskError(f"model {manifest.name!r} can't forecast: {name} is one number a step")
        self.levels = [f"{level:g}" for level in self.options.quantiles]

    def open(self, options: Mapping[str, Any]) -> Memory:
        if options:
            raise ValueError(f"the task forecast has no options for a stream: leave out {', '.join(sorted(options))}")
        return Memory()

    def step(
        self, memories: Sequence[Memory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        events: list[list[Event]] = []
        means, quantiles = outputs["mean"].tolist(), outputs["quantiles"].swapaxes(2, 3).tolist()
        told = {name: outputs[name].tolist() for name in self.says if name in outputs}
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            memory.readings += real
            events.append(
                [
                    Forecast(
                        tuple(means[row][step]),
                        dict(zip(self.levels, map(tuple, quantiles[row][step]), strict=True)),
                        **{name: values[row][step] for name, values in told.items()},
                    )
                    for step in range(real)
                ]
            )
        return events

    def finish(self, memory: Memory) -> list[Event]:
        return []

    def save(self, memory: Memory) -> bytes:
        return memory.readings.to_bytes(8, "little")

    def load(self, data: bytes) -> Memory:
        if len(data) != 8:
            raise ValueError("not a memory of this task")
        return Memory(int.from_bytes(data, "little"))
