"""The recipe ``spoken-digits``: a WaveNet that speaks a given digit at 8 kHz, trained on espeak-ng."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.speech.data import DIGITS, Pcm
from models.speech.synthetic import speak
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.generate.teaching import info, leave, ngram_bits
from models.zoo.generate.wavenet_generator import WaveNetConfig, WaveNetGenerator

RATE = 8000
MINUTES = 45.0
STEPS = 8  # frames of a chunk: with frames of 4 samples, 4 ms
FRAMES = 1600  # of an example: 0.8 s
BATCH, EPOCH = 6, 50
LABELS = ["silence", *(word.lower() for word in DIGITS)]
#: Words a minute and pitch of the voice, for training and held out.
SPOKEN = [(rate, pitch) for rate in (150, 160, 170) for pitch in (44, 47, 50, 53, 56)]
HELD = [(165, 49), (155, 51)]
TEXTS = {
    "data": "the ten digits by one voice of espeak-ng (en-us), at three rates and five pitches; two others held out",
    "licence": "Apache-2.0; trained on: speech synthesised by espeak-ng (GPL-3.0 program, its output is free)",
    "description": "Says a digit at 8 kHz: a WaveNet over frames of 4 samples, 14 layers of 20 channels, mu-law 8 bit.",
}


def compress(pcm: Pcm, vocabulary: int = 256) -> NDArray[np.int64]:
    """The inverse of :func:`streamer.tasks.generate.expand`."""
    x = pcm.astype(np.float64) / 32767.0
    y = np.sign(x) * np.log1p((vocabulary - 1) * np.abs(x)) / math.log(vocabulary)
    return np.clip(np.round((y + 1) / 2 * (vocabulary - 1)), 0, vocabulary - 1).astype(np.int64)


class DigitTokens:
    """Digits in random order, with silence after each: tokens [N, width], labels [N], and the first frame of each."""

    def __init__(self, voices: list[tuple[int, int]], width: int, seed: int) -> None:
        rng, noise = random.Random(seed), np.random.default_rng(seed)
        order = [(digit, voice) for voice in voices for digit in range(10)]
        rng.shuffle(order)
        tokens, labels, self.starts = [], [], []
        frames = 0
        for digit, (rate, pitch) in order:
            pcm = trimmed(speak(DIGITS[digit].lower(), "en-us", RATE, rate=rate, pitch=pitch))
            pcm = np.concatenate([pcm, np.zeros(rng.randint(800, 1600), np.int16)])[: len(pcm) + 1600]
            pcm = np.clip(pcm * 1.2 + noise.normal(0, 8, len(pcm)), -32767, 32767)  # silence with a noise floor
            whole = len(pcm) // width
            tokens.append(compress(pcm.astype(np.int16))[: whole * width].reshape(whole, width))
            labels.append(np.full(whole, digit + 1, np.int64))
            self.starts.append(frames)
            frames += whole
        self.tokens, self.labels = np.concatenate(tokens), np.concatenate(labels)

    def example(self, start: int, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The tokens [frames, width] from ``start`` on, their labels [frames], and the frames since each label began
        [frames]."""
        part = slice(start, start + frames)
        began = np.array(self.starts)
        last = began[np.searchsorted(began, np.arange(start, start + frames), side="right") - 1]
        return self.tokens[part], self.labels[part], np.arange(start, start + frames) - last


def trimmed(pcm: Pcm) -> Pcm:
    """``pcm`` without the silence at both ends."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 200)
    return pcm[max(0, loud[0] - 80) : loud[-1] + 160]


class SpokenExamples(torch.utils.data.IterableDataset[Any]):
    def __init__(self, spoken: DigitTokens, frames: int, batch: int, batches: int) -> None:
        self.spoken, self.frames, self.batch, self.batches = spoken, frames, batch, batches
        self.rng = np.random.default_rng(1)
        self.starts = [s for s in spoken.starts if s + frames <= len(spoken.labels)]

    def __iter__(self) -> Iterator[list[Tensor]]:
        for _ in range(self.batches):
            found = [self.spoken.example(s, self.frames) for s in self.rng.choice(self.starts, self.batch)]
            yield [torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)]


def loss(model: WaveNetGenerator, batch: list[Tensor]) -> Tensor:
    """Mean negative log-likelihood, in nats per sample."""
    tokens, labels, since = batch
    return F.cross_entropy(model.teach(tokens, labels, since).flatten(0, 2), tokens.flatten())


class SpokenDigitsTraining(Budgeted):
    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        found = loss(self.model, batch)
        self.losses.append(float(found.detach()))
        return found

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def train(folder: Path, minutes: float | None = None, steps: int = 0, config: WaveNetConfig | None = None) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of
    ``minutes``."""
    torch.manual_seed(1)
    model = WaveNetGenerator(config or WaveNetConfig())
    width = model.config.width
    spoken, held = DigitTokens(SPOKEN, width, 1), DigitTokens(HELD, width, 2)
    options = {
        "kind": "audio", "vocabulary": model.config.vocabulary, "sample_rate": RATE, "temperature": 0.8,
        "conditions": {"digit": LABELS},
    }  # fmt: skip
    about = info("spoken-digits", model.columns.limits(), STEPS, options, step_seconds=width / RATE) | TEXTS
    later = next(iter(SpokenExamples(held, FRAMES, 8, 1)))

    def evaluate(average: Any) -> dict[str, float]:
        with torch.no_grad():
            return {"error": float(loss(average, later)) / math.log(2)}

    def save(path: Path, average: Any, learnt: dict[str, Any]) -> None:
        checkpoint.save(path, average, about | learnt)

    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=4e-3, average=0.99)
    training = SpokenDigitsTraining(model, budget, evaluate, save, folder)
    fit(training, SpokenExamples(spoken, FRAMES, BATCH, min(EPOCH, steps or EPOCH)))
    best = folder / "best.pt"
    tokens, past = later[0].flatten().tolist(), spoken.tokens.flatten().tolist()
    scores = {"bits per sample": evaluate(checkpoint.load(best)[0])["error"]}
    for order in (1, 3):
        scores[f"bits per sample, {order}-gram"] = ngram_bits(past[:600_000], tokens, order, model.config.vocabulary)
    leave(folder, scores)
    return best
