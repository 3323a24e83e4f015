"""Streams of a generator, run side by side in one batch, without sessions and sockets: for the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.tasks import Event, TaskError
from streamer.tasks.generate import Generate

__all__ = ["Generation"]


class Generation:
    """One stream for each entry of ``wishes``, the options of :class:`streamer.tasks.generate.Request`.

    Raises :class:`ModelError` for a file that is not a generator, ``ValueError`` for options that do not fit.
    """

    def __init__(self, model: Model, wishes: Sequence[Mapping[str, Any]]) -> None:
        manifest = model.manifest
        if manifest.task != "generate":
            raise ModelError(f"{model.path}: is for the task {manifest.task}, it generates nothing")
        if len(wishes) > manifest.max_batch:
            raise ValueError(f"{manifest.name} runs at most {manifest.max_batch} streams at once")
        try:
            self.task = Generate(manifest)
        except TaskError as error:
            raise ModelError(f"{model.path}: {error}") from error
        self.model = model
        self.memories = [self.task.open(wish) for wish in wishes]
        self._stepper = Stepper(model, len(wishes))

    def step(self, steps: Sequence[int] | None = None) -> list[list[Event]]:
        """The next chunk of every stream; of stream i only the first ``steps[i]`` steps give events, then it ends."""
        manifest, chunk = self.model.manifest, self.model.manifest.chunk
        rows = [
            self.task.controls(memory.request, memory.position // self.task.width, chunk) for memory in self.memories
        ]
        outputs = self._stepper.step(np.stack(rows))
        return self.task.step(self.memories, outputs, steps or [manifest.steps] * len(rows))

    def finish(self) -> list[list[Event]]:
        """The last events of every stream."""
        return [list(self.task.finish(memory)) for memory in self.memories]
