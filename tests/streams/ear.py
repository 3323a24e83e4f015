"""A second recogniser that can be held up, and sound for it: levels, as the toy model reads them, with noise on top."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from streamer.streams.revision import Heard, HeardWord
from tests.engine.support import PATIENCE
from tests.toys import level, speech

__all__ = ["NAMES", "OPTIONS", "Ear", "talk"]

#: The toy's utterances end after so much silence.
OPTIONS = {"endpoint": {"trailing": 0.3, "silence": 2.0, "length": 20.0}}
NAMES = {"A": "Alpha,", "B": "Beta."}
POISON = 30000


class Ear:
    """Writes ``Alpha,`` for each run of A and ``Beta.`` for B. While ``closed`` it hears nothing; it fails on a sample
    of :data:`POISON`."""

    rate = 8000

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.heard: list[int] = []  # samples of each piece

    def hear(self, sound: NDArray[np.float32]) -> Heard:
        assert self.open.wait(PATIENCE)
        self.heard.append(len(sound))
        if (np.abs(sound) * 32768 >= POISON).any():
            raise RuntimeError("a sound that it can't bear")
        size = self.rate // 100
        frames = sound[: len(sound) // size * size].reshape(-1, size).mean(axis=1)
        signs = np.sign(np.where(np.abs(frames) < 0.2, 0, frames)).astype(int)
        edges = np.flatnonzero(np.diff(signs, prepend=0, append=0))
        words = [
            HeardWord(NAMES["A" if signs[a] > 0 else "B"], a / 100, b / 100, 0.9)
            for a, b in pairwise(edges)
            if signs[a]
        ]
        return Heard(tuple(words), logp=-0.2)


def talk(*texts: str, quiet: float = 0.6, seed: int = 0) -> NDArray[np.int16]:
    """Each text as an utterance, with a pause behind it in which it ends."""
    parts = [part for text in texts for part in (speech(text), level(0.0, quiet))]
    clean = np.concatenate(parts).astype(np.int32)
    noise = np.random.default_rng(seed).normal(0, 60, len(clean))
    return (clean + np.rint(noise).astype(np.int32)).clip(-29000, 29000).astype(np.int16)
