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

from streamer.contract.manifest import Manifest

__all__ = ["Event", "Forecast", "Task", "TaskError", "Transcription", "Word", "create"]


class TaskError(ValueError):
    """The manifest asks for a task, or for options of one, that this build can't serve. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Word:
    """One recognised word. Times in seconds since the start of the stream; ``confidence`` in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


class Event(Protocol):
    """What a task has to say. ``type`` is ``partial`` (superseded by the next partial or final) or anything else."""

    @property
    def type(self) -> str: ...

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, as it goes over the wire."""


@dataclass(frozen=True, slots=True)
class Transcription:
    """``partial`` (may change; its first ``stable`` words will not) or ``final`` (will not change).

    ``start`` and ``end`` are seconds since the start of the stream, those of the first and last word.
    """

    type: str
    text: str
    start: float
    end: float
    words: tuple[Word, ...] = ()
    stable: int = 0

    def to_dict(self) -> dict[str, Any]:
        """``stable`` is told of partials only: of a final everything is."""
        words = [{"word": w.word, "start": w.start, "end": w.end, "confidence": w.confidence} for w in self.words]
        event = {"type": self.type, "text": self.text, "start": self.start, "end": self.end, "words": words}
        return event | {"stable": self.stable} if self.type == "partial" else event


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is to come, said after one reading. ``mean`` [H]: the next H readings; ``quantiles``: levels (``"0.05"``) to
    [H], in ascending order of levels and never crossing.

    ``anomaly``: the probability that a reading is at least as far from what was expected as this one, in (0, 1]; 1
    where nothing was expected. ``drift``: residuals of late over usual ones, 1: as ever. ``None``: it is not told.
    ``target``: which of a model's several variables it is about.
    """

    mean: tuple[float, ...]
    quantiles: Mapping[str, tuple[float, ...]]
    anomaly: float | None = None
    drift: float | None = None
    target: str | None = None
    type: str = "forecast"

    def to_dict(self) -> dict[str, Any]:
        quantiles = {level: list(values) for level, values in self.quantiles.items()}
        says = {"anomaly": self.anomaly, "drift": self.drift}
        whose = {} if self.target is None else {"target": self.target}
        return {"type": self.type, **whose, "mean": list(self.mean), "quantiles": quantiles, **says}


class Task(Protocol):
    """What the engine asks of a task. Memories are opaque to everybody else and belong to one stream each."""

    def open(self, options: Mapping[str, Any]) -> Any:
        """A new stream's memory. Raises ``ValueError`` with a message for the client on bad options."""

    def step(
        self, memories: Sequence[Any], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> Sequence[Sequence[Event]]:
        """One batch: row *i* of every output ``[N, T, ...]`` is ``memories[i]``; only its first ``steps[i]`` count.

        Mutates the memories. Row *i* of the result does not depend on the other rows (the company law).
        """

    def finish(self, memory: Any) -> Sequence[Event]:
        """The stream has ended: what is still open becomes final."""

    def save(self, memory: Any) -> bytes:
        """The whole memory; the same memory gives the same bytes."""

    def load(self, data: bytes) -> Any:
        """A memory that goes on exactly where the saved one stood. Raises ``ValueError`` on anybody else's bytes."""


def create(manifest: Manifest) -> Task:
    """The task that ``manifest.task`` names. Raises :class:`TaskError` if it is not built or its options do not fit."""
    if manifest.task == "transcribe":
        from streamer.tasks.transcribe.task import Transcribe

        return Transcribe(manifest)
    if manifest.task == "forecast":
        from streamer.tasks.forecast import Forecaster

        return Forecaster(manifest)
    if manifest.task == "generate":
        from streamer.tasks.generate import Generate

        return Generate(manifest)
    if manifest.task == "classify":
        from streamer.tasks.classify import Classify

        return Classify(manifest)
    if manifest.task == "rewrite":
        from streamer.tasks.rewrite import Rewrite

        return Rewrite(manifest)
    if manifest.task == "enhance":
        from streamer.tasks.enhance import Enhance

        return Enhance(manifest)
    if manifest.task == "raw":
        from streamer.tasks.raw import Raw

        return Raw(manifest)
    raise TaskError(
        f"model {manifest.name!r} is for the task {manifest.task!r}, which this build does not have: "
        "transcribe, forecast, generate, classify, enhance, rewrite and raw are"
    )
