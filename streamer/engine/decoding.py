"""A batch of outputs to events, by the task. Where its step raises, only the stream that it raises for fails.

A step changes memories while it runs, so nobody knows how far it came. Each memory is copied before it; if the step
raises, every row is decoded once more, alone and from its copy.
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
    """``memories`` [N] are those to go on with, ``events`` those of each row, ``errors`` by row those of the streams
    that failed: their memories mean nothing. ``cause``: why the rows were decoded one by one, ``None``: they were not.
    """

    memories: Sequence[Any]
    events: Sequence[Sequence[Event]]
    errors: Mapping[int, Exception]
    cause: Exception | None = None


def decode(
    task: Task, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
) -> Decoded:
    """As :meth:`Task.step`, for ``outputs`` [N, ...]. Raises nothing that belongs to one of the rows."""
    copies: list[Any] = []
    try:
        for memory in memories:
            copies.append(task.copy(memory))
        return Decoded(memories, _step(task, memories, outputs, steps), {})
    except Exception as error:  # whatever it is: it is the problem of the rows that cause it
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
