"""The recipe ``vad``: voice activity detection, trained on sentences in noise, labelled by their energy without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.speech import data
from models.speech.augment import Wave, quiet_level
from models.speech.data import Pcm, Utterance
from models.speech.noises import Noises, mixed
from models.training import checkpoint
from models.training.budget import Budget
from models.training.recipe import dev_speakers
from models.zoo.generate.teaching import leave
from models.zoo.speech.audio_classifier import AudioClassifier, AudioClassifierConfig
from models.zoo.speech.framewise import Batches, auc, f1, teach

RATE = 16000
FRAME, HOP = RATE // 100, RATE // 25
CHUNK_STEPS = 4  # 160 ms
MINUTES, SECONDS, BATCH, EPOCH = 6.0, 10.0, 16, 60
#: Share of the noise recording for training; the rest is for the score.
HEARD = 0.75
INFO = {
    "name": "vad",
    "task": "classify",
    "hop": HOP,
    "flush": 0,
    "input": {
        "name": "pcm",
        "dtype": "int16",
        "chunk_shape": [CHUNK_STEPS * HOP],
        "sample_rate": RATE,
        "lowest_rate": 8000,
    },
    "options": {
        "mode": "running",
        "labels": ["speech"],
        "segments": {"on": 0.6, "off": 0.35, "minimum": 0.08, "hangover": 0.24},
    },
    "description": "Is somebody speaking? Log-mel, two convolutions, a GRU of 40 units; steps of 40 ms.",
    "data": "speechocean762 train (115 speakers) among a kitchen, hum, tones, clicks and coloured noise at -5 to 25 "
    "dB, labelled by the energy of the clean recording",
    "licence": "Apache-2.0; trained on speechocean762: free for commercial and non-commercial purposes; kitchen noise: "
    "Apache-2.0",
}


class Scene(NamedTuple):
    pcm: Pcm
    labels: NDArray[np.int64]  # by step, 1 for speech


def active(wave: Wave) -> NDArray[np.bool_]:
    """The frames of 10 ms with speech of a clean recording [N] bool: within 35 dB of the loudest and above the
    background; pauses up to 120 ms count as speech."""
    frames = wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME)
    if not len(frames):
        return np.zeros(0, np.bool_)
    level = 10 * np.log10(np.square(frames, dtype=np.float64).mean(1) + 1e-10)
    loud, quiet = np.quantile(level, [0.95, 0.1])
    found = level > max(loud - 35, min(quiet + 9, loud - 15))
    for value, longest in ((False, 12), (True, 2)):  # short pauses become speech, then short bursts become silence
        edges = np.flatnonzero(np.diff(np.concatenate([[not value], found, [not value]]) == value))
        for first, behind in edges.reshape(-1, 2):
            if behind - first <= longest and first > 0 and behind < len(found):
                found[first:behind] = not value
    return found


class VadScenes:
    """Random scenes: sentences of one speaker with pauses, in noise; one scene in seven has no speech."""

    def __init__(self, speech: Sequence[Utterance], noises: Noises, seed: int) -> None:
        self.noises, self.rng = noises, np.random.default_rng(seed)
        self.speakers: dict[str, list[Utterance]] = {}
        for utterance in speech:
            self.speakers.setdefault(utterance.speaker, []).append(utterance)

    def draw(self, seconds: float, snr: tuple[float, float] = (-5.0, 25.0), narrow: float = 0.25) -> Scene:
        rng, steps = self.rng, int(seconds * RATE) // HOP
        wave, spoken = np.zeros(steps * HOP, np.float32), np.zeros(steps * 4, np.bool_)
        level = 0.05
        if rng.random() > 1 / 7:
            self._speak(wave, spoken)
            power = np.square(wave[np.repeat(spoken, FRAME)]).mean() if spoken.any() else 0.0
            level = float(np.sqrt(power)) or level
        pcm = mixed(wave, self.noises, rng, RATE, snr=snr, level=level, narrow=narrow)
        return Scene(pcm, (spoken.reshape(-1, 4).sum(1) >= 2).astype(np.int64))

    def _speak(self, wave: Wave, spoken: NDArray[np.bool_]) -> None:
        rng = self.rng
        mine = self.speakers[list(self.speakers)[int(rng.integers(len(self.speakers)))]]
        at = int(rng.uniform(0, 2.0) * 100)  # in frames
        while at < len(spoken):
            pcm = mine[int(rng.integers(len(mine)))].pcm
            part = np.asarray(pcm[: (len(spoken) - at) * FRAME], np.float32) / 32768
            part = part[: len(part) // FRAME * FRAME]
            wave[at * FRAME : at * FRAME + len(part)] += part
            spoken[at : at + len(part) // FRAME] |= active(np.asarray(pcm, np.float32) / 32768)[: len(part) // FRAME]
            pause = int(rng.exponential(1.0) * 100)
            hiss = quiet_level(part, RATE) * rng.random() * (rng.random() < 0.7)  # of the pause; else digital silence
            begin = at + len(part) // FRAME
            silence = wave[begin * FRAME : (begin + pause) * FRAME]
            silence += (rng.standard_normal(len(silence)) * hiss).astype(np.float32)
            at = begin + pause

    def batch(self, count: int, seconds: float) -> tuple[torch.Tensor, torch.Tensor]:
        scenes = [self.draw(seconds) for _ in range(count)]
        return torch.from_numpy(np.stack([s.pcm for s in scenes])), torch.from_numpy(
            np.stack([s.labels for s in scenes])
        )


def energy(pcm: Pcm) -> NDArray[np.float64]:
    """The baseline: each step's energy over the minimum of the last three seconds, in dB."""
    steps = np.asarray(pcm, np.float64).reshape(-1, HOP) / 32768
    level = 10 * np.log10(np.square(steps).mean(1) + 1e-9)
    floor = np.lib.stride_tricks.sliding_window_view(np.pad(level, (74, 0), mode="edge"), 75).min(1)
    return level - floor


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``.
    Raises ``FileNotFoundError`` if the shared data is missing."""
    corpus = data.speechocean("train", RATE)
    rest, held = data.by_speaker(corpus, dev_speakers(corpus))
    kitchen = data.kitchen(RATE).astype(np.float32) / 32768
    heard, unheard = np.split(kitchen, [int(HEARD * len(kitchen))])
    best = learn(rest, held, heard, folder, Budget(minutes=minutes or MINUTES, steps=steps, rate=6e-3, average=0.99))
    scenes = VadScenes(data.speechocean("test", RATE), Noises(RATE, unheard, 99), 99)
    leave(folder, score(checkpoint.load(best)[0], [scenes.draw(20.0) for _ in range(90)]))
    return best


def learn(
    rest: list[Utterance], held: list[Utterance], noise: Wave, folder: Path, budget: Budget, epoch: int = EPOCH
) -> Path:
    """Train on the speakers of ``rest``; returns the checkpoint with the lowest loss on those of ``held``."""
    torch.manual_seed(1)
    scenes, others = VadScenes(rest, Noises(RATE, noise, 1), 1), VadScenes(held, Noises(RATE, noise, 2), 2)
    model = AudioClassifier(AudioClassifierConfig(labels=1))
    model.normalise(scenes.batch(BATCH, SECONDS)[0])
    batches = Batches(lambda: scenes.batch(BATCH, SECONDS), min(epoch, budget.steps or epoch))
    return teach(model, batches, [others.batch(BATCH, SECONDS) for _ in range(2)], INFO, folder, budget)


@torch.no_grad()
def score(model: AudioClassifier, scenes: Sequence[Scene]) -> dict[str, float]:
    """Scores over all steps of all scenes; the energy detector has its best threshold on these scenes."""
    wanted = np.concatenate([scene.labels for scene in scenes])
    found = []
    for scene in scenes:
        output, _ = model(torch.from_numpy(scene.pcm)[None], model.initial_state(1))
        found.append(output["scores"][0, :, 0].numpy())
    mine, plain = np.concatenate(found), np.concatenate([energy(scene.pcm) for scene in scenes])
    thresholds = np.quantile(plain, np.linspace(0.02, 0.98, 97))
    return {
        "ROC AUC": auc(mine, wanted),
        "F1 at 0.5": f1(mine > 0.5, wanted),
        "ROC AUC, energy over its floor": auc(plain, wanted),
        "F1, energy over its floor, best threshold": max(f1(plain > t, wanted) for t in thresholds),
        "steps with speech": float(wanted.mean()),
    }
