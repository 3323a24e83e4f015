"""Tasks: what a model's numbers mean. A task turns rows of output into events.

A task is made once per model (:func:`create`) and shared by all of its streams; what belongs to one stream is an opaque
*memory* that the task opens, steps, saves and loads. Tasks run on NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.manifest import Manifest

__all__ = ["Event", "Task", "TaskError", "Word", "create"]


class TaskError(ValueError):
    """The manifest asks for a task, or for options of one, that this build can't serve. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. Times in seconds since the start of the stream; ``confidence`` in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Event:
    """A result: ``partial`` (may change; its first ``stable`` words will not) or ``final`` (will not change).

    ``start`` and ``end`` are seconds since the start of the stream, those of the first and last word.
    """

    type: str
    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    stable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as it goes over the wire. ``stable`` is told of partials only: of a final everything is."""
        words = [{"word": w.word, "start": w.start, "end": w.end, "confidence": w.confidence} for w in self.words]
        event = {"type": self.type, "text": self.text, "start": self.start, "end": self.end, "words": words}
        return event | {"stable": self.stable} if self.type == "partial" else event


class Task(Protocol):
    """What the engine asks of a task. Memories are opaque to everybody else and belong to one stream each."""

    def open(self, options: Mapping[str, Any]) -> Any:
        """A new stream's memory. Raises ``ValueError`` with a message for the client on bad options."""

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Event]]:
        """One batch: row *i* of every output ``[N, T, ...]`` is ``memories[i]``; only its first ``steps[i]`` count.

        Mutates the memories. Row *i* of the result does not depend on the other rows (the company law).
        """

    def finish(self, memory: Any) -> list[Event]:
        """The stream has ended: what is still open becomes final."""

    def save(self, memory: Any) -> bytes:
        """The whole memory; the same memory gives the same bytes."""

    def load(self, data: bytes) -> Any:
        """A memory that goes on exactly where the saved one stood. Raises ``ValueError`` on anybody else's bytes."""


def create(manifest: Manifest) -> Task:
    """The task that ``manifest.task`` names. Raises :class:`TaskError` if it is not built or its options do not fit."""
    if manifest.task == "transcribe":
        from streamer.tasks.transcribe import Transcribe

        return Transcribe(manifest)
    raise TaskError(
        f"model {manifest.name!r} is for the task {manifest.task!r}, which this build does not have: transcribe is"
    )
