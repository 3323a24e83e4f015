"""Recipes for tests: they train for seconds on synthetic words of tones and run all of the training code."""

from __future__ import annotations

import numpy as np

from models.speech.acoustic import AcousticConfig
from models.speech.augment import Augmentation
from models.speech.ctc import CtcOptions
from models.speech.data import TOKENS, Utterance
from models.speech.mixture import UtteranceSource
from models.training.recipe import Recipe

RATE = 8000
PITCHES = {"AA": 300.0, "IY": 700.0, "S": 1500.0, "M": 2600.0}  # Hz
WORDS = {"SEA": ["S", "IY"], "MAMA": ["M", "AA", "M", "AA"], "ME": ["M", "IY"]}


def utterances(count: int, seed: int) -> list[Utterance]:
    """Recordings of one to three words of tones, 120 ms a phone."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        words = [list(WORDS)[int(k)] for k in rng.integers(len(WORDS), size=int(rng.integers(1, 4)))]
        phones = [WORDS[word] for word in words]
        time = np.arange(int(0.12 * RATE)) / RATE
        tones = [0.3 * np.sin(2 * np.pi * PITCHES[p] * time) for word in phones for p in word]
        wave = np.concatenate(tones) + rng.standard_normal(len(tones) * len(time)) * 0.003
        pcm = (wave * 32767).astype(np.int16)
        out.append(Utterance(f"tones{i}", f"speaker{i % 3}", " ".join(words), phones, 20, pcm))
    return out


def tiny(family: str) -> Recipe:
    return Recipe(
        name=f"tiny-{family}",
        config=AcousticConfig(
            family, RATE, len(TOKENS), bands=16, front=16, channels=16, skip=16, dilations=(1, 2), hidden=16, layers=1
        ),
        options=CtcOptions(steps=12, rate=5e-3, truncate=0 if family == "wavenet" else 60),
        augmentation=Augmentation(),
        sources=[UtteranceSource("tones", utterances(30, 1), lambda p: 1.0, joined=(1, 2), together=0.5)],
        noise=np.zeros(0, np.int16),
        dev={"dev": utterances(6, 2)},
        seconds=6.0,
        batches=4,
        info={
            "lexicon": {word: [phones] for word, phones in WORDS.items()},
            "data": "tones made on the spot",
            "licence": "Apache-2.0",
        },
    )
