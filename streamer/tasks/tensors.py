"""Raw model outputs for streams of any task, on request: the stream option ``tensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.tasks import Event, Task
from streamer.tasks.raw import Raw, RawMemory

__all__ = ["WithTensors"]

#: Prefix of the saved memory of a stream with ``tensors``; no task's own memory begins with it.
MARK = b"\0tensors"


class WithTensors:
    """Serves streams with the option ``tensors``, ignoring their other options, and passes all others to ``task``."""

    def __init__(self, task: Task, manifest: Manifest) -> None:
        self.task, self._raw = task, Raw.of(manifest)

    def open(self, options: Mapping[str, Any]) -> Any:
        asked = options.get("tensors", False)
        if not isinstance(asked, bool):
            raise ValueError("the option tensors is true or false")
        rest = {name: value for name, value in options.items() if name != "tensors"}
        return self._raw.open({}) if asked else self.task.open(rest)

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> Sequence[Sequence[Event]]:
        raw = [row for row, memory in enumerate(memories) if isinstance(memory, RawMemory)]
        if not raw:
            return self.task.step(memories, outputs, steps)
        if len(raw) == len(memories):
            return self._raw.step(memories, outputs, steps)
        found: list[Sequence[Event]] = [[]] * len(memories)
        others = sorted(set(range(len(memories))) - set(raw))
        tasks: tuple[tuple[Task, list[int]], ...] = ((self._raw, raw), (self.task, others))
        for task, rows in tasks:
            parts = {name: array[rows] for name, array in outputs.items()}
            events = task.step([memories[row] for row in rows], parts, [steps[row] for row in rows])
            for row, result in zip(rows, events, strict=True):
                found[row] = result
        return found

    def copy(self, memory: Any) -> Any:
        return self._task_of(memory).copy(memory)

    def finish(self, memory: Any) -> Sequence[Event]:
        return self._task_of(memory).finish(memory)

    def save(self, memory: Any) -> bytes:
        data = self._task_of(memory).save(memory)
        return MARK + data if isinstance(memory, RawMemory) else data

    def load(self, data: bytes) -> Any:
        return self._raw.load(data[len(MARK) :]) if data.startswith(MARK) else self.task.load(data)

    def _task_of(self, memory: Any) -> Task:
        return self._raw if isinstance(memory, RawMemory) else self.task
