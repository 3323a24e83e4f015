"""Decodes a batch of outputs to events by the task. If the task raises, only the stream that causes it fails.

A step changes memories while it runs, so after an exception they may be half-changed. Each memory is copied before the
step; if it raises, every row is decoded again alone, from its copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.tasks import Event, Task

__all__ = ["Decoded", "decode"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """``memories`` [N]: the memories after the step. ``events``: by row. ``errors``: by row of the streams that failed,
    whose memories are invalid. ``cause``: the exception for which rows were decoded one by one, ``None`` without one.
    """

    memories: Sequence[Any]
    events: Sequence[Sequence[Event]]
    errors: Mapping[int, Exception]
    cause: Exception | None = None


def decode(
    task: Task, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
) -> Decoded:
    """As :meth:`Task.step`, for ``outputs`` [N, ...]. Exceptions caused by a row are returned, not raised."""
    copies: list[Any] = []
    try:
        for memory in memories:
            copies.append(task.copy(memory))
        return Decoded(memories, _step(task, memories, outputs, steps), {})
    except Exception as error:  # any error belongs to the rows that cause it
        cause = error
    kept: list[Any] = []
    events: list[Sequence[Event]] = []
    errors: dict[int, Exception] = {}
    for row, real in enumerate(steps):
        try:
            # where copying failed nothing has been stepped, and the others are as they were
            memory = copies[row] if len(copies) == len(memories) else task.copy(memories[row])
            own = {name: array[row : row + 1] for name, array in outputs.items()}
            (given,) = _step(task, [memory], own, [real])
        except Exception as error:
            memory, given, errors[row] = memories[row], (), error
        kept.append(memory)
        events.append(given)
    return Decoded(kept, events, errors, cause)


def _step(
    task: Task, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
) -> Sequence[Sequence[Event]]:
    events = task.step(memories, outputs, steps)
    if len(events) != len(memories):
        raise RuntimeError(f"the task gave the events of {len(events)} streams, there are {len(memories)}")
    return events
