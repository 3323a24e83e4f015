"""The recipe ``denoiser``: removes kitchen noise from speech; trained to restore read sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.shipped.masking import Masking, MaskingConfig
from models.shipped.wiener import wiener
from models.speech import data
from models.speech.augment import Wave
from models.speech.data import Pcm, Utterance, to_pcm
from models.speech.noises import Noises
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.training.recipe import dev_speakers
from models.zoo.generate.teaching import leave
from models.zoo.speech.framewise import Batches

RATE = 16000
#: Samples of a chunk: 32 ms.
CHUNK = 512
MINUTES, SECONDS, BATCH, EPOCH = 9.0, 3.0, 16, 40
#: Share of the noise recording for training; the rest is for the score.
HEARD = 0.75
#: Share of the speech's energy that is added to the error's, so that smaller errors hardly count (Wisdom et al. 2020).
ENOUGH = 1e-3
INFO = {
    "name": "denoiser",
    "task": "enhance",
    "hop": 256,
    "latency": 1,
    "flush": 1,
    "input": {"name": "pcm", "dtype": "int16", "chunk_shape": [CHUNK], "sample_rate": RATE},
    "options": {},
    "description": "Speech without the noise around it: two GRUs of 96 units filter short-time spectra; 16 ms late.",
    "data": "speechocean762 train (115 speakers) in a kitchen, hum, music, clicks and coloured noise at 0 to 10 dB",
    "licence": "Apache-2.0; trained on speechocean762: free for commercial and non-commercial purposes; kitchen noise: "
    "Apache-2.0",
}


class Pair(NamedTuple):
    noisy: Pcm
    clean: Wave  # full scale 1, at its loudness within ``noisy``


class DenoiserScenes:
    """Random scenes: sentences of one speaker, one after another, in noise."""

    def __init__(self, speech: Sequence[Utterance], noises: Noises, seed: int) -> None:
        self.noises, self.rng = noises, np.random.default_rng(seed)
        self.speakers: dict[str, list[Utterance]] = {}
        for utterance in speech:
            self.speakers.setdefault(utterance.speaker, []).append(utterance)

    def draw(self, seconds: float, snr: tuple[float, float] = (0.0, 10.0)) -> Pair:
        """A scene of ``seconds``. ``snr``: range of the signal-to-noise ratio over the whole scene, in dB."""
        rng, length = self.rng, int(seconds * RATE) // CHUNK * CHUNK
        mine = self.speakers[list(self.speakers)[int(rng.integers(len(self.speakers)))]]
        wave = np.zeros(0, np.float32)
        while len(wave) < length:
            part = np.asarray(mine[int(rng.integers(len(mine)))].pcm, np.float32) / 32768
            wave = np.concatenate([wave, part])
        start = int(rng.integers(len(wave) - length + 1))
        return mix(wave[start : start + length], self.noises.draw(rng, length), rng, rng.uniform(*snr))

    def batch(self, count: int, seconds: float) -> tuple[Tensor, Tensor]:
        """``count`` scenes: noisy int16 and clean float32, [count, samples] each."""
        pairs = [self.draw(seconds) for _ in range(count)]
        noisy, clean = np.stack([p.noisy for p in pairs]), np.stack([p.clean for p in pairs])
        return torch.from_numpy(noisy), torch.from_numpy(clean)


def mix(wave: Wave, noise: Wave, rng: np.random.Generator, snr: float) -> Pair:
    """``wave`` [N] with ``noise`` [N], whose power is ``snr`` dB lower, at a random loudness that does not clip."""
    power = np.square(wave).mean() / max(1e-12, float(np.square(noise).mean()))
    noisy = wave + noise * np.float32(np.sqrt(power / 10 ** (snr / 10)))
    scale = np.float32(rng.uniform(0.03, 0.9) / (float(np.abs(noisy).max()) + 1e-6))
    return Pair(to_pcm(noisy * scale), wave * scale)


def loss_of(model: Masking, noisy: Tensor, clean: Tensor) -> Tensor:
    """Energy of the error over that of the speech, in dB, mean over the batch."""
    output, _ = model(noisy, model.initial_state(len(noisy)))
    found, wanted = output["audio"].flatten(1)[:, model.latency :], clean[:, : clean.shape[1] - model.latency]
    energy = wanted.square().sum(1) + 1e-8
    return 10 * torch.log10(((found - wanted).square().sum(1) + ENOUGH * energy) / energy).mean()


class Denoising(Budgeted):
    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = loss_of(self.model, *batch)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``.
    Raises ``FileNotFoundError`` if the shared data is missing."""
    corpus = data.speechocean("train", RATE)
    rest, held = data.by_speaker(corpus, dev_speakers(corpus))
    kitchen = data.kitchen(RATE).astype(np.float32) / 32768
    heard, unheard = np.split(kitchen, [int(HEARD * len(kitchen))])
    best = learn(rest, held, heard, folder, Budget(minutes=minutes or MINUTES, steps=steps, rate=4e-3, average=0.99))
    leave(folder, score(checkpoint.load(best)[0], data.speechocean("test", RATE), unheard))
    return best


def learn(
    rest: list[Utterance],
    held: list[Utterance],
    noise: Wave,
    folder: Path,
    budget: Budget,
    epoch: int = EPOCH,
    warm: Path | None = None,
) -> Path:
    """Train on the speakers of ``rest``; returns the checkpoint with the lowest error on those of ``held``. ``epoch``:
    batches between two evaluations. ``warm``: a checkpoint to start from."""
    torch.manual_seed(1)
    scenes, others = DenoiserScenes(rest, Noises(RATE, noise, 1), 1), DenoiserScenes(held, Noises(RATE, noise, 2), 2)
    model = Masking(MaskingConfig())
    model.normalise(scenes.batch(BATCH, SECONDS)[0])
    if warm is not None:
        model.load_state_dict(checkpoint.load(warm)[0].state_dict())
    kept = [others.batch(BATCH, SECONDS) for _ in range(2)]

    @torch.no_grad()
    def evaluate(average: Masking) -> dict[str, float]:
        return {"error": float(np.mean([float(loss_of(average, *batch)) for batch in kept]))}

    def save(path: Path, average: Masking, about: dict[str, object]) -> None:
        checkpoint.save(path, average, INFO | about)

    batches = Batches(lambda: scenes.batch(BATCH, SECONDS), min(epoch, budget.steps or epoch))
    fit(Denoising(model, budget, evaluate, save, folder), batches)
    return folder / "best.pt"


def si_sdr(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019)."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    target = wanted * (found @ wanted / (wanted @ wanted + 1e-20))
    error = found - target
    return float(10 * np.log10((target @ target + 1e-20) / (error @ error + 1e-20)))


@torch.no_grad()
def denoise(model: Masking, pcm: Pcm) -> Wave:
    """One recording, float32 of the same length; the model's delay is removed."""
    padded = np.pad(pcm, (0, model.latency + -(len(pcm) + model.latency) % model.hop))
    output, _ = model(torch.from_numpy(padded)[None], model.initial_state(1))
    return output["audio"].flatten()[model.latency : model.latency + len(pcm)].numpy()


def score(model: Masking, speech: Sequence[Utterance], kitchen: Wave, every: int = 6) -> dict[str, float]:
    """SI-SDR gain in dB over the noisy recording, in kitchen noise only, of every ``every``-th sentence; beside it, the
    gain of a Wiener filter."""
    found: dict[str, float] = {}
    for snr in (0.0, 5.0, 10.0):
        rng = np.random.default_rng(99)
        gains = []
        for utterance in speech[::every]:
            at = int(rng.integers(len(kitchen))) + np.arange(len(utterance.pcm))
            noise = np.take(kitchen, at, mode="wrap")
            pair = mix(np.asarray(utterance.pcm, np.float32) / 32768, noise, rng, snr)
            before = si_sdr(pair.noisy, pair.clean)
            mine = si_sdr(denoise(model, pair.noisy), pair.clean) - before
            gains.append((utterance.age >= 16, mine, si_sdr(wiener(pair.noisy), pair.clean) - before))
        table = np.array(gains, np.float64)
        found[f"SI-SDR gain at {snr:g} dB"] = float(table[:, 1].mean())
        found[f"SI-SDR gain at {snr:g} dB, Wiener filter"] = float(table[:, 2].mean())
        if snr == 5.0:
            for group, name in ((1, "adults"), (0, "children")):
                if (table[:, 0] == group).any():
                    found[f"SI-SDR gain at 5 dB, {name}"] = float(table[table[:, 0] == group, 1].mean())
    return found
