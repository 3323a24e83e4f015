"""Word confidence as the probability that a word is right: a logistic function fitted to development recordings.

The acoustic model's posterior alone is a poor estimate: it may be high for a wrong word. Further features are the
word's length, its language-model scores, and means over its neighbours and over the utterance.
:mod:`models.speech.fitting` fits the weights, which are an option in the model's file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.ngram import NGram

__all__ = ["FEATURES", "LEAST", "features", "probabilities"]

#: Columns of :func:`features`. ``own``: log of the word's plain confidence; ``letters``: its length; ``lm`` and
#: ``unigram``: its log-probabilities after the words before it and by itself, 0 without a language model; ``near``:
#: means with the words next to it; ``mean``: means over the utterance.
FEATURES = ("own", "letters", "lm", "unigram", "near_own", "near_lm", "mean_own", "mean_lm")
#: Lower bound of plain confidences.
LEAST = 1e-3

Floats = NDArray[np.float64]


def features(words: Sequence[str], confidences: Sequence[float], lm: NGram | None) -> Floats:
    """Features [words, :data:`FEATURES`] of the words of one utterance so far; at least one word."""
    own = np.log(np.maximum(confidences, LEAST))
    letters = np.array([len(word) for word in words], np.float64)
    score = unigram = np.zeros(len(words))
    if lm is not None:
        unknown = lm.index["<unk>"]
        ids = np.array([lm.index.get(word, unknown) for word in words], np.int64)
        score, unigram = lm.sequence(ids), lm.unigram(ids)
    mean = np.ones(len(words))
    return np.stack(
        [own, letters, score, unigram, _near(own), _near(score), mean * own.mean(), mean * score.mean()], axis=1
    )


def _near(values: Floats) -> Floats:
    """The mean of each value and its neighbours."""
    total, count = values.copy(), np.ones(len(values))
    total[1:] += values[:-1]
    total[:-1] += values[1:]
    count[1:] += 1
    count[:-1] += 1
    return np.asarray(total / count)


def probabilities(table: Floats, weights: Floats, bias: float) -> Floats:
    """Probabilities [words] from features [words, :data:`FEATURES`] and their weights."""
    score = (table * weights).sum(axis=1)
    return np.asarray(1 / (1 + np.exp(-(score + bias))))
