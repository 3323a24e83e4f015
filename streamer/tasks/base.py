"""The protocol that every task implements, and the events that several packages use.

A task is made once per model (:func:`streamer.tasks.create`) and shared by all of its streams. What belongs to one
stream is an opaque *memory* that the task opens, steps, saves and loads. Tasks run on NumPy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Event", "Forecast", "Task", "TaskError", "Transcription", "Word"]


class TaskError(ValueError):
    """The manifest asks for a task, or for options, that this build does not support. The message has the remedy."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. Times in seconds since the start of the stream; ``confidence`` in [0, 1]. ``written``: the
    word with punctuation and capitals, in finals of streams that asked for written text."""

    word: str
    start: float
    end: float
    confidence: float
    written: str | None = None

    def to_dict(self) -> dict[str, Any]:
        facts = {"word": self.word, "start": self.start, "end": self.end, "confidence": self.confidence}
        return facts if self.written is None else facts | {"written": self.written}


class Event(Protocol):
    """One result of a task. ``type`` is ``partial`` (superseded by the next partial or final) or anything else."""

    @property
    def type(self) -> str: ...

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON values, as it is sent over the wire."""


@dataclass(frozen=True, slots=True)
class Transcription:
    """``partial`` (may change; its first ``stable`` words will not) or ``final`` (will not change).

    ``start`` of the first word and ``end`` of the last word, in seconds since the start of the stream.
    """

    type: str
    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    stable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """``stable`` is left out of a final, whose words are all stable."""
        words = [word.to_dict() for word in self.words]
        event = {"type": self.type, "text": self.text, "start": self.start, "end": self.end, "words": words}
        return event | {"stable": self.stable} if self.type == "partial" else event


@dataclass(frozen=True, slots=True)
class Forecast:
    """The forecast after one reading. ``mean`` [H]: the next H readings; ``quantiles``: levels (``"0.05"``) to [H], in
    ascending order of levels and never crossing.

    ``anomaly``: the probability that a reading is at least as far from its forecast as this one, in (0, 1]; 1 where
    there was no forecast. ``drift``: recent residuals over the long-term ones, 1 without drift. Either is ``None``
    where the model does not compute it. ``target``: the variable that is forecast, of a model with several.
    """

    mean: tuple[float, ...]
    quantiles: Mapping[str, tuple[float, ...]]
    anomaly: float | None = None
    drift: float | None = None
    target: str | None = None
    type: str = "forecast"

    def to_dict(self) -> dict[str, Any]:
        quantiles = {level: list(values) for level, values in self.quantiles.items()}
        scores = {"anomaly": self.anomaly, "drift": self.drift}
        target = {} if self.target is None else {"target": self.target}
        return {"type": self.type, **target, "mean": list(self.mean), "quantiles": quantiles, **scores}


class Task(Protocol):
    """The interface between the engine and a task. A memory belongs to one stream and is opaque outside of the task."""

    def open(self, options: Mapping[str, Any]) -> Any:
        """A new stream's memory. Raises ``ValueError`` with a message for the client on bad options."""

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> Sequence[Sequence[Event]]:
        """One batch: row *i* of every output ``[N, T, ...]`` is ``memories[i]``; only its first ``steps[i]`` count.

        Mutates the memories. Row *i* of the result does not depend on the other rows (the company law).
        """

    def copy(self, memory: Any) -> Any:
        """An independent copy: a step of one does not change the other. Called before every step, so it is cheap."""

    def finish(self, memory: Any) -> Sequence[Event]:
        """End the stream and return its last events."""

    def save(self, memory: Any) -> bytes:
        """The whole memory as bytes; equal memories give equal bytes."""

    def load(self, data: bytes) -> Any:
        """The inverse of :meth:`save`. Raises ``ValueError`` for bytes that :meth:`save` of this task did not write."""
