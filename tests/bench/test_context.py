"""Where the bench of the second pass puts its pauses."""

from __future__ import annotations

import random

import numpy as np

from bench.context import PAUSE, RATE, parted
from models.speech.data import Utterance


def test_a_pause_comes_between_two_words() -> None:
    words = [["AA", "B"]] * 6
    segments = [[20 * i + 5, 20 * i + 15] for i in range(12)]  # frames of 10 ms, with gaps of ten between phones
    pcm = np.arange(1, 12 * 20 * 160 + 1).clip(max=32000).astype(np.int16)
    pcm[::2] *= -1
    utterance = Utterance("a", "a", "A B C D E F", words, 30, pcm, segments)
    places = set()
    for seed in range(40):
        made = parted(utterance, random.Random(seed))
        at = int(np.argmax(made[: len(pcm)] != pcm))
        assert PAUSE[0] * RATE - 1 <= len(made) - len(pcm) <= PAUSE[1] * RATE + 1
        np.testing.assert_array_equal(np.concatenate([made[:at], made[at - len(pcm) :]]), pcm)
        places.add(at // 160)
    assert places == {80, 120, 160}  # in the middle of the gap, behind two to four words
