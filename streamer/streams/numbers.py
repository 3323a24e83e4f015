"""Numbers of a transcript in digits: "twenty three point five" becomes 23.5. The transcriber's option ``numbers``.

A transcript is cut into phrases of number words and other words, which do not change. An encoder-decoder model writes
each phrase in digits (task ``rewrite``), and rules turn its output back into words (:mod:`streamer.tasks.spoken`): the
output is used only if these are the spoken words. So a number may stay in words, but its value can't change.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from streamer.engine.catalogue import NUMBERS, resolve
from streamer.engine.model import Model, ModelError
from streamer.engine.stepper import Stepper
from streamer.tasks import TaskError
from streamer.tasks.rewrite import Rewrite
from streamer.tasks.spoken import JOINED, LARGE, TENS, UNITS, known, ordinal, says

__all__ = ["BOUND", "Formatter", "Piece", "formatter", "phrases"]

#: Some words of a text and their written form: (first, end, written).
Piece = tuple[int, int, str]
#: Characters of a written number at most, the end included.
BOUND = 16
#: Words of a phrase at most; longer ones stay as they are.
LONGEST = 24
DIGITS = frozenset({*UNITS[:10], "oh"})
#: These words stay words when they are alone, as in print.
SMALL = frozenset({*UNITS[:10], *(ordinal(n)[0] for n in range(1, 10))})
#: Words that only follow a number.
BEHIND = frozenset({"percent", "o'clock", "am", "pm", "dollars", "euros", "cents"})
NUMBER = frozenset({*UNITS, *TENS, *LARGE, "oh"})


@cache
def formatter() -> Formatter:
    """The shipped formatter, loaded once. Raises :class:`ModelError` if its file is missing or unusable."""
    return Formatter(Model.load(resolve(NUMBERS)))


class Formatter:
    """Has no state of its own: any number of streams may share it."""

    def __init__(self, model: Model) -> None:
        try:
            self._task = Rewrite(model.manifest)
        except TaskError as error:
            raise ModelError(f"{model.path}: {error}") from error
        self._model = model

    def write(self, texts: Sequence[Sequence[str]]) -> list[list[Piece]]:
        """For each text the pieces that cover all its words, in order."""
        found = [(number, begin, end) for number, words in enumerate(texts) for begin, end in phrases(words)]
        said = [[known(word) for word in texts[number][begin:end]] for number, begin, end in found]
        digits = {
            (number, begin): (begin, end, text)
            for (number, begin, end), phrase, text in zip(found, said, self.rewrite(said), strict=True)
            if says(phrase, text)
        }
        pieces: list[list[Piece]] = []
        for number, words in enumerate(texts):
            pieces.append([])
            at = 0
            while at < len(words):
                pieces[-1].append(digits.get((number, at), (at, at + 1, words[at])))
                at = pieces[-1][-1][1]
        return pieces

    def rewrite(self, said: Sequence[Sequence[str]]) -> list[str]:
        """The model's output for each phrase, unchecked; empty if it does not end within :data:`BOUND` characters."""
        most = self._model.manifest.max_batch
        return [text for i in range(0, len(said), most) for text in self._batch(said[i : i + most])]

    def _batch(self, said: Sequence[Sequence[str]]) -> list[str]:
        manifest, task = self._model.manifest, self._task
        rows, begin = task.rows(said, BOUND), max(map(len, said))  # they all end in the same row
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % manifest.chunk), (0, 0)))
        stepper = Stepper(self._model, len(said))
        memories = [task.open({}) for _ in said]
        texts: list[str | None] = [None] * len(said)
        for chunk in np.split(rows, rows.shape[1] // manifest.chunk, axis=1):
            outputs = stepper.step(np.ascontiguousarray(chunk))
            for i, events in enumerate(task.step(memories, outputs, [manifest.steps] * len(said))):
                for event in events:
                    if begin <= event.step < begin + BOUND and texts[i] is None:
                        texts[i] = event.text
            if None not in texts:
                break
        return [text or "" for text in texts]


def phrases(words: Sequence[str]) -> list[tuple[int, int]]:
    """Where numbers may stand: (begin, end) of runs of number words that belong together. Their neighbours are other
    words, so a run that can't be written is left whole: half of it would be another number."""
    codes = [known(word) for word in words]
    edges = [-1]  # words that belong to no run
    runs: list[tuple[int, int]] = []
    for i, code in enumerate(codes):
        begins = edges[-1] == i - 1
        after = codes[i + 1] if i + 1 < len(codes) else ""
        if not code or not _joins("" if begins else codes[i - 1], code, after):
            edges.append(i)
    for left, right in pairwise([*edges, len(codes)]):
        begin, end = left + 1, right
        alone = end - begin == 1 and codes[begin] in SMALL
        # "twenty second delay" does not mean 22nd
        seconds = end > begin and codes[end - 1] == "second" and (end == len(words) or words[end].lower() != "of")
        if begin < end and end - begin <= LONGEST and not alone and not seconds:
            runs.append((begin, end))
    return runs


def _joins(before: str, word: str, after: str) -> bool:
    """Whether a word continues a number after its word ``before`` (empty: the number begins with this word)."""
    match word:
        case "and":
            return before in JOINED and after in NUMBER
        case "a":
            return not before and after in LARGE
        case "to":
            return before == "quarter" and after in UNITS
        case "past":
            return (before in ("half", "quarter") or before in NUMBER) and after in UNITS
        case "half" | "quarter":
            return not before and after in ("past", "to")
        case "point":
            return before in NUMBER and after in DIGITS
        case "minus":
            return not before and after in NUMBER
    return word not in BEHIND or bool(before)
