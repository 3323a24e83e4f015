"""The task ``raw``: the model's outputs as they are, for a model whose numbers no other task has a meaning for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.tasks import Event, TaskError

__all__ = ["Memory", "Outputs", "Raw"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one chunk gave. ``step``: steps of the stream before it; ``outputs``: by name, its real steps only."""

    step: int
    outputs: Mapping[str, NDArray[Any]]
    type: str = "outputs"

    def to_dict(self) -> dict[str, Any]:
        """A number that JSON does not have is ``None``."""
        return {
            "type": self.type,
            "step": self.step,
            "outputs": {name: _listed(array) for name, array in self.outputs.items()},
        }


@dataclass(slots=True)
class Memory:
    """``step``: how many the stream has had."""

    step: int = 0


class Raw:
    """Shared by all streams of one model. Outputs: any, [N, T, ...]."""

    def __init__(self, manifest: Manifest) -> None:
        if manifest.options:
            raise TaskError(
                f"model {manifest.name!r}: the task raw has no options, leave out {', '.join(sorted(manifest.options))}"
            )
        self.steps = manifest.steps

    def open(self, options: Mapping[str, Any]) -> Memory:
        if options:
            raise ValueError(f"the task raw has no options for a stream: leave out {', '.join(sorted(options))}")
        return Memory()

    def step(
        self, memories: Sequence[Memory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        events: list[list[Event]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            # an output with fewer rows than steps has one for several of them
            parts = {name: a[row, : -(-a.shape[1] * real // self.steps)].copy() for name, a in outputs.items()}
            events.append([Outputs(memory.step, parts)] if real else [])
            memory.step += real
        return events

    def finish(self, memory: Memory) -> list[Event]:
        return []

    def save(self, memory: Memory) -> bytes:
        return memory.step.to_bytes(8, "little")

    def load(self, data: bytes) -> Memory:
        if len(data) != 8:
            raise ValueError("not a memory of this task")
        return Memory(int.from_bytes(data, "little"))


def _listed(array: NDArray[Any]) -> Any:
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return array.tolist()
    return np.where(np.isfinite(array), array, None).tolist()  # type: ignore[call-overload]
