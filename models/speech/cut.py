"""Cuts words out of aligned recordings, which training joins to new strings of the same speaker."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from models.speech.data import Utterance

#: Frames of 10 ms kept around a word where its neighbours leave room, since alignments are not exact.
MARGIN = 4
FADE = 0.005  # seconds, against clicks


def cut_words(utterances: Sequence[Utterance], words: Collection[str], sample_rate: int) -> list[Utterance]:
    """One utterance for every occurrence of one of the ``words``; recordings without segments are skipped."""
    there = (u for u in utterances if u.segments and not set(words).isdisjoint(u.text.split()))
    return [piece for u in there for piece in _cut(u, words, sample_rate)]


def _cut(utterance: Utterance, words: Collection[str], sample_rate: int) -> Iterator[Utterance]:
    frame, total = sample_rate // 100, len(utterance.pcm) * 100 // sample_rate
    last = 0  # phones of the words so far
    for number, (word, phones) in enumerate(zip(utterance.text.split(), utterance.phones, strict=True)):
        first, last = last, last + len(phones)
        if word not in words:
            continue
        begin, end = utterance.segments[first][0], utterance.segments[last - 1][1]
        before = utterance.segments[first - 1][1] if first else 0
        after = utterance.segments[last][0] if last < len(utterance.segments) else total
        start = max(begin - MARGIN, (before + begin) // 2)
        stop = min(end + MARGIN, (end + after + 1) // 2)
        pcm = utterance.pcm[start * frame : stop * frame].astype(np.float32)
        ramp = np.minimum(1.0, np.arange(len(pcm)) / (FADE * sample_rate))
        segments = [[a - start, b - start] for a, b in utterance.segments[first:last]]
        yield Utterance(
            f"{utterance.key}#{number}", utterance.speaker, word, [phones], utterance.age,
            np.rint(pcm * ramp * ramp[::-1]).astype(np.int16), segments,
        )  # fmt: skip
