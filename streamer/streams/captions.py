"""Punctuation and capitals for a recogniser's words. The transcriber's option ``text``.

A small recurrent model (task ``rewrite``, :mod:`streamer.tasks.marks`) reads the words of each final and gives each
word's punctuation mark and capitals. It looks a few words ahead; the end of a final is a pause for it, which yields the
labels of the last words. Its state stays with the stream: a sentence may continue in the next final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from streamer.engine.catalogue import WRITTEN, resolve
from streamer.engine.model import Model, ModelError
from streamer.tasks import TaskError
from streamer.tasks.marks import Marks

__all__ = ["CaptionReading", "Captioner", "Labels", "captioner"]

Arrays = dict[str, NDArray[np.generic]]


@cache
def captioner() -> Captioner:
    """The shipped captioner, loaded once. Raises :class:`ModelError` if its file is missing or unusable."""
    return Captioner(Model.load(resolve(WRITTEN)))


@dataclass(slots=True)
class CaptionReading:
    """The captioner's state for one stream. ``states`` [*shape] by input name, empty at the start; they are replaced,
    never changed in place. ``begins``: the next word is a sentence's first."""

    states: Arrays = field(default_factory=dict)
    begins: bool = True


@dataclass(frozen=True, slots=True)
class Labels:
    """For each word of a final: the indexes of its mark and case in the model's options."""

    marks: list[int]
    cases: list[int]


class Captioner:
    """Has no state of its own: any number of streams may share it."""

    def __init__(self, model: Model) -> None:
        try:
            self.task = Marks(model.manifest)
        except TaskError as error:
            raise ModelError(f"{model.path}: {error}") from error
        self.model = model
        self._chunk = model.manifest.chunk

    def read(self, finals: Sequence[Sequence[Sequence[str]]], readings: Sequence[CaptionReading]) -> list[list[Labels]]:
        """Labels of each stream's finals, each a list of words, in order. The readings are advanced.

        A stream's labels depend on its own words alone. Raises errors of a run; the readings are then unchanged.
        """
        most = self.model.manifest.max_batch
        found: list[list[Labels]] = []
        states: list[Arrays] = []
        for i in range(0, len(finals), most):
            labels, after = self._batch(finals[i : i + most], readings[i : i + most])
            found += labels
            states += after
        for reading, state in zip(readings, states, strict=True):
            reading.states = state
        return found

    def _batch(
        self, finals: Sequence[Sequence[Sequence[str]]], readings: Sequence[CaptionReading]
    ) -> tuple[list[list[Labels]], list[Arrays]]:
        chunk, width = self._chunk, self.task.width
        each = [[self._rows(words) for words in own] for own in finals]
        rows = [np.concatenate([np.zeros((0, width), np.int32), *own]) for own in each]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))  # streams that still have words come first
        states = self._states([readings[i] for i in order])
        said: list[list[Arrays]] = [[] for _ in rows]
        for at in range(0, max(map(len, rows), default=0), chunk):
            active = [i for i in order if len(rows[i]) > at]
            n = len(active)
            part = np.stack([rows[i][at : at + chunk] for i in active])
            feeds = {name: np.ascontiguousarray(array[:n]) for name, array in states.items()}
            outputs = self.model.run({self.model.manifest.input.name: part, **feeds})
            for name, array in self.model.manifest.carry(outputs).items():
                states[name][:n] = array
            for place, i in enumerate(active):
                said[i].append({name: outputs[name][place] for name in ("marks", "cases")})
        labels: list[list[Labels]] = []
        for own, words, parts in zip(each, finals, said, strict=True):
            labels.append(self._labels(own, words, parts))
        after = [{name: states[name][order.index(i)].copy() for name in states} for i in range(len(rows))]
        return labels, after

    def _rows(self, words: Sequence[str]) -> NDArray[np.int32]:
        """The rows of the words and of a pause after them: as many as the model looks ahead, and padding to whole
        chunks."""
        rows = self.task.rows(words)
        total = len(rows) + self.task.ahead
        return np.pad(rows, ((0, -(-total // self._chunk) * self._chunk - len(rows)), (0, 0)))

    def _states(self, readings: Sequence[CaptionReading]) -> dict[str, NDArray[np.generic]]:
        """States [N, ...] by input name; zeros for a stream without a state, or with one of another model."""
        states: dict[str, NDArray[np.generic]] = dict(self.model.zero_state(len(readings)))
        for row, reading in enumerate(readings):
            for name, array in states.items():
                own = reading.states.get(name)
                if own is not None and own.shape == array.shape[1:] and own.dtype == array.dtype:
                    array[row] = own
        return states

    def _labels(
        self, each: Sequence[NDArray[np.int32]], finals: Sequence[Sequence[str]], parts: Sequence[Arrays]
    ) -> list[Labels]:
        if not parts:
            return []
        marks, cases = self.task.choose({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})
        found: list[Labels] = []
        at = self.task.ahead
        for rows, words in zip(each, finals, strict=True):
            found.append(Labels(marks[at : at + len(words)].tolist(), cases[at : at + len(words)].tolist()))
            at += len(rows)
        return found
