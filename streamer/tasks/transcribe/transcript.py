"""Turns a decoder's units into words with times and confidence, and words into events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streamer.tasks.base import Transcription, Word
from streamer.tasks.transcribe import pieces
from streamer.tasks.transcribe.confidence import features, probabilities
from streamer.tasks.transcribe.ngram import NGram
from streamer.tasks.transcribe.options import Confidence, Times
from streamer.tasks.transcribe.search import Unit

__all__ = ["Known", "Transcript"]

Known = dict[tuple[Unit, ...], Word]


@dataclass(frozen=True, slots=True)
class Transcript:
    """How one model's units become words. ``joined``: units are characters, with ``boundary`` units between words.

    ``pieces``: units are parts of words (:mod:`streamer.tasks.transcribe.pieces`). ``step_seconds``: time of one step.
    ``delay``: steps between a sound and its unit.
    """

    boundary: str | None
    joined: bool
    step_seconds: float
    delay: int
    pieces: bool = False
    times: Times = field(default_factory=Times)
    confidence: Confidence | None = None
    lm: NGram | None = None

    def event(
        self,
        kind: str,
        units: Sequence[Unit],
        stable: int,
        step: int,
        words: bool,
        known: Known | None = None,
        after: float = 0.0,
    ) -> Transcription:
        """The ``partial`` or ``final`` (``kind``) of an utterance. ``stable``: number of units that will not change;
        ``step``: the time of an event without words; ``words``: list words in the event; ``after``: end of the
        previous event, in seconds."""
        found, whole = self.words(units, stable, {} if known is None else known)
        found = _in_order(found, after)
        if words:
            found = self._calibrated(found)
        now = self.seconds(step)
        start, end = (found[0].start, found[-1].end) if found else (now, now)
        text = (pieces.sentence if self.pieces else " ".join)([word.word for word in found])
        return Transcription(kind, text, start, end, tuple(found) if words else (), whole)

    def words(self, units: Sequence[Unit], stable: int, known: Known) -> tuple[list[Word], int]:
        """The words, and how many of them will not change if the first ``stable`` units don't.

        ``known``: a cache of words; the partials of one utterance share most of their words.
        """
        if self.pieces:
            return self._words(*pieces.words([unit.text for unit in units], stable), units, known)
        words: list[list[Unit]] = []
        inside, whole = False, 0
        for index, unit in enumerate(units):
            if unit.text == self.boundary:
                inside = False
            elif inside:
                words[-1].append(unit)
            else:
                words.append([unit])
                inside = self.joined
            if not inside and index < stable:
                whole = len(words)
        return [known.get(parts) or known.setdefault(parts, self._word(parts)) for parts in map(tuple, words)], whole

    def _words(self, cuts: Sequence[slice], whole: int, units: Sequence[Unit], known: Known) -> tuple[list[Word], int]:
        """As :meth:`words`, for the units between the cuts; words without any text are left out."""
        parts = [tuple(units[cut]) for cut in cuts]
        found = [known.get(part) or known.setdefault(part, self._word(part)) for part in parts]
        return [word for word in found if word.word], sum(1 for word in found[:whole] if word.word)

    def seconds(self, step: int) -> float:
        """Seconds from the stream's start to ``step``, corrected by the delay, rounded to milliseconds."""
        return round(max(0, step - self.delay) * self.step_seconds, 3)

    def _calibrated(self, words: list[Word]) -> list[Word]:
        """The words with calibrated confidences, if the model has weights for them."""
        if self.confidence is None or not words:
            return words
        table = features([word.word for word in words], [word.confidence for word in words], self.lm)
        right = probabilities(table, np.array(self.confidence.weights), self.confidence.bias)
        return [replace(word, confidence=round(p, 4)) for word, p in zip(words, right.tolist(), strict=True)]

    def _word(self, parts: Sequence[Unit]) -> Word:
        """One word. Its confidence is the geometric mean of its tokens' highest posteriors."""
        confidence = math.exp(min(0.0, sum(part.logp for part in parts) / len(parts)))
        text = (pieces.spelt if self.pieces else "".join)([part.text for part in parts])
        start = max(0.0, round(self.seconds(parts[0].start) + self.times.start, 3))
        end = round(self.seconds(parts[-1].end + 1) + self.times.end, 3)
        return Word(text, start, max(start, end), round(confidence, 4))


def _in_order(words: list[Word], after: float) -> list[Word]:
    """The words with times moved so that none begins before the previous one ends, the first not before ``after``."""
    found = []
    for word in words:
        if word.start < after:
            word = replace(word, start=after, end=max(after, word.end))
        found.append(word)
        after = word.end
    return found
