"""The task ``rewrite``, word by word: punctuation after each word, and its capitals. The letters do not change.

A row is one word as the codes of its letters, padded with zeros; a row of zeros is a pause. The model looks ``latency``
rows ahead, so its output for a word comes that many rows later: as many pauses after the last word flush it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from streamer.contract.manifest import Manifest
from streamer.tasks.base import TaskError
from streamer.tasks.rewrite import Rewritten
from streamer.tasks.strict import STRICT

__all__ = [
    "CASES",
    "ENDS",
    "LETTERS",
    "MARKS",
    "WIDTH",
    "I",
    "Marks",
    "MarksOptions",
    "coded",
    "is_known",
    "is_written",
    "write",
]

#: The known letters: a letter's code is its index here plus 1; all other letters share the next code.
LETTERS = "abcdefghijklmnopqrstuvwxyz'0123456789-."
#: The model sees this many letters of a word.
WIDTH = 20
MARKS = ("", ",", ".", "?")
CASES = ("lower", "capital", "upper")
#: Marks after which a sentence begins.
ENDS = frozenset({".", "?"})
#: Words that are capitalised everywhere.
I = frozenset({"i", "i'm", "i'll", "i'd", "i've"})  # noqa: E741
_BEHIND = re.compile(r"[,.?!;:…]$")


class MarksOptions(BaseModel):
    """``options`` of a manifest whose task is ``rewrite``, for a model that works word by word. ``letters``: their
    codes begin at 1. ``marks``: the punctuation mark of each output column, "" for no mark. ``weights``: each mark's
    probability is multiplied by its weight before the largest is taken."""

    model_config = STRICT

    letters: Annotated[str, Field(min_length=1, max_length=256)]
    marks: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    cases: tuple[Literal["lower"], Literal["capital"], Literal["upper"]]
    weights: tuple[Annotated[float, Field(gt=0)], ...] = ()


@dataclass(slots=True)
class MarksMemory:
    """``step``: number of steps so far. ``begins``: the next word begins a sentence."""

    step: int = 0
    begins: bool = True


class Marks:
    """Shared by all streams of one model. Outputs: ``letters`` [N, T, W], the word of ``latency`` rows ago, zeros for a
    pause; ``marks`` [N, T, marks] and ``cases`` [N, T, 3], its probabilities."""

    def __init__(self, manifest: Manifest) -> None:
        try:
            self.options = MarksOptions.model_validate_json(json.dumps(manifest.options))
        except ValidationError as error:
            problems = "; ".join(f"options.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
            raise TaskError(f"model {manifest.name!r} can't rewrite: {problems}; export the model again") from error
        steps, *width = manifest.input.chunk_shape
        marks = len(self.options.marks)
        wanted = {"letters": (steps, *width), "marks": (steps, marks), "cases": (steps, len(CASES))}
        if (shapes := {output.name: output.shape for output in manifest.outputs}) != wanted or len(width) != 1:
            raise TaskError(f"model {manifest.name!r} can't rewrite: its outputs are {shapes}, not {wanted}")
        if manifest.input.limits != (limits := ((0, len(self.options.letters) + 1),) * width[0]):
            raise TaskError(f"model {manifest.name!r} can't rewrite: the limits of its input are not {limits}")
        if self.options.weights and len(self.options.weights) != marks:
            raise TaskError(f"model {manifest.name!r} can't rewrite: {marks} weights are needed, one for each mark")
        self.width, self.ahead = width[0], manifest.latency
        self._weights = np.array(self.options.weights or (1.0,) * marks, np.float32)

    def rows(self, words: Sequence[str]) -> NDArray[np.int32]:
        """Input rows [n, W] of words, without the pauses that flush them."""
        return coded(words, self.options.letters, self.width)

    def choose(self, outputs: Mapping[str, NDArray[np.generic]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the best marks and cases, each [...], from outputs [..., choices]."""
        marks = np.nan_to_num(outputs["marks"].astype(np.float32)) * self._weights
        return marks.argmax(-1), np.nan_to_num(outputs["cases"].astype(np.float32)).argmax(-1)

    def written(self, words: Sequence[str], marks: Sequence[int], cases: Sequence[int], begins: bool) -> list[str]:
        """Each word with its mark and capitals. ``begins``: the first word begins a sentence."""
        found: list[str] = []
        for word, mark, case in zip(words, marks, cases, strict=True):
            found.append(write(word, self.options.marks[mark], CASES[case], begins))
            begins = self.ends(mark)
        return found

    def ends(self, mark: int) -> bool:
        """Whether a sentence ends after this mark."""
        return self.options.marks[mark] in ENDS

    # -- the protocol of a task: a stream of words ---------------------------------------------------------------------

    def open(self, options: Mapping[str, Any]) -> MarksMemory:
        if options:
            raise ValueError(
                f"the task rewrite has no options for a stream: leave out {', '.join(sorted(map(str, options)))}"
            )
        return MarksMemory()

    def step(
        self, memories: Sequence[MarksMemory], outputs: Mapping[str, NDArray[np.generic]], steps: Sequence[int]
    ) -> list[list[Rewritten]]:
        marks, cases = self.choose(outputs)
        confidence = outputs["marks"].astype(np.float64).max(-1, initial=0)
        events: list[list[Rewritten]] = []
        for row, (memory, real) in enumerate(zip(memories, steps, strict=True)):
            events.append([])
            for t in range(real):
                if word := self._word(outputs["letters"][row, t].astype(np.int64).tolist()):
                    (text,) = self.written([word], [int(marks[row, t])], [int(cases[row, t])], memory.begins)
                    memory.begins = self.ends(int(marks[row, t]))
                    nats = float(np.log(max(confidence[row, t], 1e-30)))
                    events[-1].append(Rewritten(memory.step - self.ahead, text, nats))
                memory.step += 1
        return events

    def _word(self, codes: Sequence[int]) -> str:
        letters = self.options.letters
        return "".join(letters[code - 1] if 1 <= code <= len(letters) else "?" for code in codes if code)

    def copy(self, memory: MarksMemory) -> MarksMemory:
        return MarksMemory(memory.step, memory.begins)

    def finish(self, memory: MarksMemory) -> list[Rewritten]:
        return []

    def save(self, memory: MarksMemory) -> bytes:
        return json.dumps({"step": memory.step, "begins": memory.begins}, sort_keys=True).encode()

    def load(self, data: bytes) -> MarksMemory:
        try:
            facts = json.loads(data)
            return MarksMemory(int(facts["step"]), bool(facts["begins"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"not a memory of this task: {error}") from error


def coded(words: Sequence[str], letters: str = LETTERS, width: int = WIDTH) -> NDArray[np.int32]:
    """Codes [n, width] of each word's first letters, regardless of case."""
    rows = np.zeros((len(words), width), np.int32)
    for row, word in zip(rows, words, strict=True):
        codes = [letters.find(letter) + 1 or len(letters) + 1 for letter in word.lower()[:width]]
        row[: len(codes)] = codes
    return rows


def write(word: str, mark: str, case: str, begins: bool) -> str:
    """``word`` with capitals by ``case``, then ``mark``. ``begins``: the word begins a sentence. Only the case of its
    letters changes, and a word that already ends with a mark gets no second one."""
    if word.upper() == word:  # from a recogniser that writes capitals only
        word = _same(word, word.lower())
    if case == "upper":
        word = _upper(word)
    elif case == "capital" or begins or word.lower() in I:
        at = next((place for place, letter in enumerate(word) if letter.isalnum()), 0)
        word = _same(word, word[:at] + word[at : at + 1].upper() + word[at + 1 :])
    return word if _BEHIND.search(word) else word + mark


def _upper(word: str) -> str:
    """``word`` in capitals, except for a final "'s": CEO's."""
    stem, sign, rest = word.rpartition("'")
    return _same(word, (stem.upper() + sign + rest) if stem and rest.lower() == "s" else word.upper())


def _same(word: str, other: str) -> str:
    """``other`` if it differs from ``word`` in case alone, else ``word``: some letters have capitals of two letters."""
    return other if len(other) == len(word) and other.lower() == word.lower() else word


def is_known(text: str) -> bool:
    """Whether the model knows most of the word's letters; words in other scripts stay unchanged."""
    letters = [letter for letter in text.lower() if letter.isalpha()]
    return 2 * sum(letter in LETTERS for letter in letters) > len(letters)


def is_written(text: str) -> bool:
    """Whether a text already has mixed case or punctuation; such texts stay unchanged."""
    words = [word for word in text.split() if word.lower() not in I]
    plain = " ".join(words)
    return plain not in (plain.lower(), plain.upper()) or any(
        _BEHIND.search(word) and "." not in word[:-1] for word in words
    )
