"""The recipe ``parallel-digits``: all samples of a spoken digit in parallel, distilled from ``spoken-digits``' WaveNet.

Probability density distillation (van den Oord et al. 2018, arXiv 1711.10433, sections 4 and 5): student and teacher
both have a distribution over the same 256 levels for every sample, so that the divergence is an exact sum. Divergence
alone leads to whispers; a spectral loss, against one of the teacher's voices, leads to a voice. The spectral loss has
the higher weight at first: as long as the output is not speech, the teacher's divergence would dominate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.generate.parallel_wavenet import EDGE, ParallelConfig, ParallelWaveNet, levels_log_prob
from models.zoo.generate.spoken_digits import LABELS, RATE, DigitTokens
from models.zoo.generate.teaching import info, leave
from models.zoo.generate.wavenet_generator import WaveNetGenerator

MINUTES = 40.0
TEACHER = Path("runs/zoo/spoken-digits/best.pt")
#: Words a minute and pitch of the voice for the spectral loss, in the middle of the teacher's range.
VOICE = (160, 50)
STEPS = 16  # of a chunk: 64 samples, 8 ms
FRAMES, BATCH, EPOCH = 1440, 3, 25
#: Windows of the spectral loss, in samples.
WINDOWS = (64, 128, 256, 512)
TEXTS = {
    "data": "no recording but ten of one espeak-ng voice, for their spectrum; distilled from spoken-digits",
    "licence": "Apache-2.0; trained on: speech synthesised by espeak-ng (GPL-3.0 program, its output is free)",
    "description": "Says a digit at 8 kHz, all samples at once: two flows of 9 layers, distilled from spoken-digits.",
}


class VoicedExamples(torch.utils.data.IterableDataset[Any]):
    """Batches of examples, each from a digit's first frame: tokens [B, T, width], labels and since [B, T]."""

    def __init__(self, spoken: DigitTokens, batches: int, frames: int = FRAMES) -> None:
        self.spoken, self.batches, self.frames = spoken, batches, frames
        self.rng = np.random.default_rng(1)
        self.starts = [s for s in spoken.starts if s + frames <= len(spoken.labels)]

    def __iter__(self) -> Iterator[list[Tensor]]:
        for _ in range(self.batches):
            found = [self.spoken.example(s, self.frames) for s in self.rng.choice(self.starts, BATCH)]
            yield [torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True)]


def losses(
    student: ParallelWaveNet, teacher: WaveNetGenerator, batch: list[Tensor], noise: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Divergence from the teacher in nats per sample, and spectral loss against the recordings."""
    tokens, labels, since = batch
    u = torch.rand(tokens.flatten(1).shape, generator=noise).clamp(EDGE, 1 - EDGE)
    top = student.config.vocabulary - 1
    sound, middle, scale, _ = student.play((u / (1 - u)).log(), labels, since, student.initial_state(len(tokens)))
    theirs = teacher.between((sound + 1) / 2 * top, labels, since).flatten(1, 2).log_softmax(2)  # [B, N, V]
    ours = levels_log_prob(middle[:, :, None], scale[:, :, None], top + 1, torch.arange(top + 1))
    divergence = (ours.exp() * (ours - theirs)).sum(2).mean()
    return divergence, spectral(expanded(sound), expanded(2 * tokens.flatten(1) / top - 1))


def expanded(x: Tensor, vocabulary: int = 256) -> Tensor:
    """Samples in [-1, 1] from the mu-law scale [-1, 1]."""
    x = x.clamp(-1, 1)
    return x.sign() * torch.expm1(x.abs() * math.log(vocabulary)) / (vocabulary - 1)


def spectral(sound: Tensor, wanted: Tensor) -> Tensor:
    """The spectral loss: relative difference of magnitudes plus difference of their logarithms, for several window
    lengths."""
    total = torch.zeros(())
    for size in WINDOWS:
        shape = torch.hann_window(size)
        found, want = (torch.stft(x, size, size // 4, window=shape, return_complex=True).abs() for x in (sound, wanted))
        total = total + (found - want).abs().mean() / want.mean()
        total = total + 0.25 * (found.clamp(min=1e-2).log() - want.clamp(min=1e-2).log()).abs().mean()
    return total / len(WINDOWS)


class Distillation(Budgeted):
    teacher: WaveNetGenerator

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        divergence, distance = losses(self.model, self.teacher, batch)
        self.log("divergence", divergence.detach(), prog_bar=True)
        found = max(0.02, min(1.0, self.progress / HEARD_FROM)) * divergence + WEIGHT * distance
        self.losses.append(float(found.detach()))
        return found

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=0.0)


#: Weight of the spectral loss, and the progress from which the divergence has its full weight.
WEIGHT, HEARD_FROM = 5.0, 0.7


def train(
    folder: Path, minutes: float | None = None, steps: int = 0, config: ParallelConfig | None = None,
    teacher: WaveNetGenerator | None = None, frames: int = FRAMES,
) -> Path:  # fmt: skip
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``.
    ``teacher``: by default that of ``python -m models zoo spoken-digits``. Raises ``FileNotFoundError`` without one."""
    if teacher is None:
        if not TEACHER.exists():
            raise FileNotFoundError(f"{TEACHER}: no teacher there: python -m models zoo spoken-digits trains one")
        teacher, _ = checkpoint.load(TEACHER)
    teacher = teacher.eval().requires_grad_(False)
    torch.manual_seed(1)
    student = ParallelWaveNet(config or ParallelConfig())
    c = student.config
    spoken = DigitTokens([VOICE] * 3, c.width, 1)
    options = {
        "kind": "audio", "vocabulary": c.vocabulary, "sample_rate": RATE, "temperature": 0.6,
        "conditions": {"digit": LABELS},
    }  # fmt: skip
    about = info("parallel-digits", student.columns.limits(), STEPS, options, step_seconds=c.width / RATE) | TEXTS
    fixed = next(iter(VoicedExamples(DigitTokens([VOICE], c.width, 2), 1, frames)))

    def evaluate(average: Any) -> dict[str, float]:
        with torch.no_grad():
            divergence, distance = losses(average, teacher, fixed, torch.Generator().manual_seed(1))
        return {
            "error": float(divergence + WEIGHT * distance),
            "bits per sample from the teacher": float(divergence) / math.log(2),
            "spectral loss": float(distance),
        }

    def save(path: Path, average: Any, learnt: dict[str, Any]) -> None:
        checkpoint.save(path, average, about | learnt)

    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=3e-3, average=0.99)
    training = Distillation(student, budget, evaluate, save, folder)
    training.teacher = teacher
    fit(training, VoicedExamples(spoken, min(EPOCH, steps or EPOCH), frames))
    best = folder / "best.pt"
    scores = evaluate(checkpoint.load(best)[0])
    leave(folder, {name: value for name, value in scores.items() if name != "error"})
    return best
