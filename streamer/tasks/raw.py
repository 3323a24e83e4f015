"""The task ``raw``: the model's outputs unchanged, for models that fit no other task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.tasks.base import Event, TaskError

__all__ = ["Outputs", "Raw", "RawMemory", "listed", "plain"]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of one chunk. ``start`` and ``end``: the range of input rows; ``steps``: the number of output steps;
    ``outputs``: arrays by name, in the manifest's order, without the steps of padding."""

    start: int
    end: int
    steps: int
    outputs: Mapping[str, NDArray[Any]]
    type: str = "outputs"

    def to_arrays(self) -> dict[str, Any]:
        """As :meth:`to_dict`, but with arrays, for protocols that send tensors as bytes."""
        where = {"type": self.type, "start": self.start, "end": self.end, "steps": self.steps}
        return {**where, "outputs": dict(self.outputs)}

    def to_dict(self) -> dict[str, Any]:
        return plain(self.to_arrays())


@dataclass(slots=True)
class RawMemory:
    """``step``: number of steps so far."""

    step: int = 0


class Raw:
    """Shared by all streams of one model. Outputs: any, [N, T, ...]."""

    def __init__(self, manifest: Manifest) -> None:
        if manifest.options:
            raise TaskError(
                f"model {manifest.name!r}: the task raw has no options, leave out {', '.join(sorted(manifest.options))}"
            )
        self.steps, self.hop = manifest.steps, manifest.hop
        self._names = [output.name for output in manifest.outputs]

    @classmethod
    def of(cls, manifest: Manifest) -> Raw:
        """The task for a model whose manifest names another one; its options are ignored."""
        return cls(manifest.model_copy(update={"options": {}}))

    def open(self, options: Mapping[str, Any]) -> RawMemory:
        if options:
            raise ValueError(f"the task raw has no options for a stream: leave out {', '.join(sorted(options))}")
        return RawMemory()

    def step(
        self, memories: Sequence[RawMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        events: list[list[Event]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            if not real:
                events.append([])
                continue
            # an output with fewer rows than steps has one row for several steps
            parts = {n: outputs[n][row, : -(-outputs[n].shape[1] * real // self.steps)].copy() for n in self._names}
            first, memory.step = memory.step, memory.step + real
            events.append([Outputs(first * self.hop, memory.step * self.hop, real, parts)])
        return events

    def copy(self, memory: RawMemory) -> RawMemory:
        return RawMemory(memory.step)

    def finish(self, memory: RawMemory) -> list[Event]:
        return []

    def save(self, memory: RawMemory) -> bytes:
        return memory.step.to_bytes(8, "little")

    def load(self, data: bytes) -> RawMemory:
        if len(data) != 8:
            raise ValueError("not a memory of this task")
        return RawMemory(int.from_bytes(data, "little"))


def plain(event: Mapping[str, Any]) -> dict[str, Any]:
    """``event`` as JSON values: arrays in ``outputs`` become nested lists (:func:`listed`). Events without ``outputs``
    are copied unchanged."""
    outputs = event.get("outputs")
    if not isinstance(outputs, Mapping):
        return dict(event)
    return {**event, "outputs": {name: listed(array) for name, array in outputs.items()}}


def listed(array: Any) -> Any:
    """An array as nested lists, with ``None`` for NaN and infinity, which JSON lacks; anything else unchanged."""
    if not isinstance(array, np.ndarray):
        return array
    if array.dtype.kind != "f" or np.count_nonzero(np.isfinite(array)) == array.size:
        return array.tolist()
    found = array.astype(object)
    found[~np.isfinite(array)] = None
    return found.tolist()
