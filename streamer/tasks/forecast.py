"""The task ``forecast``: a mean and quantiles for every step of the horizon, after every reading.

A model takes one variable of any sensor, or a row of several named variables, of which it forecasts the targets. All
that is learnt and tracked is state of the graph; a stream's memory here only counts its readings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError, model_validator

from streamer.contract.manifest import Manifest
from streamer.tasks.base import Event, Forecast, TaskError
from streamer.tasks.strict import STRICT

__all__ = ["ForecastMemory", "ForecastOptions", "Forecaster"]

Level = Annotated[float, Field(gt=0, lt=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class ForecastOptions(BaseModel):
    """``options`` of a manifest whose task is ``forecast``: levels of the quantiles, ascending, and steps ahead.

    ``variables``: names of a row's columns, for a model that takes several; the input row then holds their values, as
    many masks (1: present), time of day and time of week. ``targets``: the variables that are forecast.
    """

    model_config = STRICT

    quantiles: Annotated[list[Level], Field(min_length=1, max_length=99)]
    horizon: Annotated[int, Field(ge=1, le=4096)]
    variables: Annotated[list[Name], Field(max_length=1024)] = []
    targets: Annotated[list[Name], Field(max_length=1024)] = []

    @model_validator(mode="after")
    def _consistent(self) -> ForecastOptions:
        if self.quantiles != sorted(set(self.quantiles)):
            raise ValueError("the levels of the quantiles must ascend")
        if bool(self.variables) != bool(self.targets) or len(self.variables) == 1:
            raise ValueError("variables are two or more, with targets among them; a model for any sensor has neither")
        for names in (self.variables, self.targets):
            if len(set(names)) < len(names):
                raise ValueError(f"named twice: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        if strange := [name for name in self.targets if name not in self.variables]:
            raise ValueError(f"targets are among the variables, {', '.join(strange)} is not")
        return self


@dataclass(slots=True)
class ForecastMemory:
    """``readings``: number of readings so far."""

    readings: int = 0


class Forecaster:
    """Shared by all streams of one model. Outputs: ``mean`` [N, T, H] and ``quantiles`` [N, T, H, Q]; ``anomaly`` and
    ``drift`` [N, T], which a model may leave out. Of several targets: [N, T, K, ...] each, and an event for each."""

    #: Outputs that a model may leave out: one number for each step and target.
    optional = ("anomaly", "drift")

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = ForecastOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't forecast: {problems}; export the model again") from error
        horizon, levels = self.options.horizon, len(self.options.quantiles)
        each = (len(self.options.targets),) if self.options.targets else ()
        shapes = {output.name: output.shape[1:] for output in manifest.outputs}
        if (shapes.get("mean"), shapes.get("quantiles")) != ((*each, horizon), (*each, horizon, levels)):
            raise TaskError(
                f"model {manifest.name!r} can't forecast: its outputs are {shapes}, mean [steps, {horizon}] and "
                f"quantiles [steps, {horizon}, {levels}] are needed"
                + (f", of {each[0]} targets [steps, {each[0]}, ...]" if each else "")
            )
        for name in self.optional:
            if shapes.get(name, each) != each:
                raise TaskError(f"model {manifest.name!r} can't forecast: {name} is one number a step and target")
        width = 2 * len(self.options.variables) + 2
        if each and manifest.input.chunk_shape[1:] != (width,):
            raise TaskError(
                f"model {manifest.name!r} can't forecast: it takes {manifest.input.chunk_shape}, a row of its "
                f"{len(self.options.variables)} variables has {width} numbers"
            )
        self.levels = [f"{level:g}" for level in self.options.quantiles]

    def open(self, options: Mapping[str, Any]) -> ForecastMemory:
        if options:
            raise ValueError(f"the task forecast has no options for a stream: leave out {', '.join(sorted(options))}")
        return ForecastMemory()

    def step(
        self, memories: Sequence[ForecastMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        names: list[str | None] = [*self.options.targets] or [None]
        shape = outputs["mean"].shape[:2]
        rows = {  # each [N, T, targets, ...]
            name: outputs[name].reshape(*shape, len(names), -1) for name in ("mean", *self.optional) if name in outputs
        }
        curves = outputs["quantiles"].reshape(*shape, len(names), *outputs["quantiles"].shape[-2:]).swapaxes(3, 4)
        means, quantiles = rows.pop("mean").tolist(), curves.tolist()
        scalars = {name: values[..., 0].tolist() for name, values in rows.items()}
        events: list[list[Event]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            memory.readings += real
            events.append(
                [
                    Forecast(
                        tuple(means[row][step][number]),
                        dict(zip(self.levels, map(tuple, quantiles[row][step][number]), strict=True)),
                        **{name: values[row][step][number] for name, values in scalars.items()},
                        target=target,
                    )
                    for step in range(real)
                    for number, target in enumerate(names)
                ]
            )
        return events

    def copy(self, memory: ForecastMemory) -> ForecastMemory:
        return ForecastMemory(memory.readings)

    def finish(self, memory: ForecastMemory) -> list[Event]:
        return []

    def save(self, memory: ForecastMemory) -> bytes:
        return memory.readings.to_bytes(8, "little")

    def load(self, data: bytes) -> ForecastMemory:
        if len(data) != 8:
            raise ValueError("not a memory of this task")
        return ForecastMemory(int.from_bytes(data, "little"))
