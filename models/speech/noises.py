"""Recorded and synthetic sounds without speech, which a recogniser must not transcribe."""

from __future__ import annotations

import numpy as np

from models.speech.augment import Wave, coloured_noise, telephone
from models.speech.data import Pcm, to_pcm

SECONDS = 40


class Noises:
    """A bank with a piece of each kind, ``SECONDS`` long, at unit power; ``seed`` makes other sounds of the same kinds.
    ``recording``: full scale 1; left out if shorter than a second."""

    def __init__(self, sample_rate: int, recording: Wave, seed: int) -> None:
        rng, length = np.random.default_rng(seed), SECONDS * sample_rate
        self.bank: dict[str, Wave] = {
            "coloured": np.concatenate([coloured_noise(rng, sample_rate * 4) for _ in range(SECONDS // 4)]),
            "hum": hum(rng, sample_rate, length),
            "music": music(rng, sample_rate, length),
            "clicks": clicks(rng, sample_rate, length),
        }
        if len(recording) >= sample_rate:
            self.bank["recording"] = recording
        self.bank = {name: piece / max(1e-9, float(piece.std())) for name, piece in self.bank.items()}

    def draw(self, rng: np.random.Generator, length: int) -> Wave:
        """``length`` samples of one kind, or of two mixed; the pieces they are cut from have unit power."""
        kinds = list(self.bank)
        # the recording is as frequent as all other kinds together
        share = np.array([len(kinds) - 1 if kind == "recording" else 1 for kind in kinds], float)
        chosen = rng.choice(len(kinds), size=1 + (rng.random() < 0.2), p=share / share.sum())
        total = np.zeros(length, np.float32)
        for kind in chosen:
            piece = self.bank[kinds[kind]]
            start = int(rng.integers(len(piece)))
            total += np.take(piece, np.arange(start, start + length), mode="wrap") / np.float32(np.sqrt(len(chosen)))
        return total


def mixed(
    wave: Wave,
    noises: Noises,
    rng: np.random.Generator,
    sample_rate: int,
    *,
    snr: tuple[float, float],
    level: float = 0.0,
    narrow: float = 0.25,
) -> Pcm:
    """``wave`` with noise (nine times in ten), at a random loudness. ``snr``: range in dB, relative to ``level``, or to
    the wave's own level if that is 0. ``narrow``: probability of a telephone's bandwidth."""
    level = level or float(np.sqrt(np.square(wave).mean())) or 0.05
    if rng.random() < 0.9:
        wave = wave + noises.draw(rng, len(wave)) * np.float32(level / 10 ** (rng.uniform(*snr) / 20))
    if rng.random() < narrow:
        wave = telephone(wave, sample_rate)
    return to_pcm(wave * np.float32(rng.uniform(0.02, 0.9) / (float(np.abs(wave).max()) + 1e-6)))


def hum(rng: np.random.Generator, sample_rate: int, length: int) -> Wave:
    """Harmonics as of mains or a motor, with another fundamental every four seconds."""
    pieces = []
    for _ in range(-(-length // (4 * sample_rate))):
        time = np.arange(4 * sample_rate) / sample_rate
        base = float(rng.choice([50.0, 60.0, rng.uniform(40, 300)]))
        heights = rng.random(12) / np.arange(1, 13) ** rng.uniform(0.3, 1.5)
        waves = heights[:, None] * np.sin(
            2 * np.pi * base * np.arange(1, 13)[:, None] * time + rng.uniform(0, 6, (12, 1))
        )
        pieces.append(waves.sum(0) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.1, 8) * time)))
    return np.concatenate(pieces)[:length].astype(np.float32)


def music(rng: np.random.Generator, sample_rate: int, length: int) -> Wave:
    """Overlapping notes and chords of a scale, with random timbres, sometimes with drums."""
    total = np.zeros(length + 3 * sample_rate, np.float32)
    at = 0
    while at < length:
        seconds = rng.uniform(0.15, 2.0)
        time = np.arange(int(seconds * sample_rate)) / sample_rate
        pitch = 55.0 * 2.0 ** (float(rng.choice([0, 2, 4, 5, 7, 9, 11])) / 12 + int(rng.integers(1, 5)))
        chord = rng.choice([0, 3, 4, 7, 12], size=int(rng.integers(2, 5)), replace=False) if rng.random() < 0.4 else [0]
        numbers = np.arange(1, int(rng.integers(3, 16)))
        heights = np.exp(-rng.uniform(0.1, 1.2) * (numbers - 1)) if rng.random() < 0.5 else 1.0 / numbers
        attack = np.minimum(1.0, time / rng.uniform(0.003, 0.08))
        envelope = attack * np.exp(-time * rng.uniform(0.2, 6.0)) * rng.uniform(0.3, 1.0)
        for interval in chord:
            base = pitch * 2.0 ** (float(interval) / 12)
            audible = numbers[base * numbers < 0.45 * sample_rate]
            waves = heights[: len(audible), None] * np.sin(2 * np.pi * base * audible[:, None] * time)
            total[at : at + len(time)] += (waves.sum(0) * envelope).astype(np.float32)
        if rng.random() < 0.3:
            drum = np.sin(2 * np.pi * rng.uniform(40, 120) * time) * np.exp(-time * rng.uniform(10, 40))
            snare = rng.standard_normal(len(time)) * np.exp(-time * rng.uniform(20, 60)) * rng.uniform(0, 1)
            total[at : at + len(time)] += (rng.uniform(0.5, 4.0) * (drum + snare)).astype(np.float32)
        at += int(rng.uniform(0.0, 0.4) * sample_rate)
    return total[:length]


def clicks(rng: np.random.Generator, sample_rate: int, length: int) -> Wave:
    """Bursts of noise or of a decaying tone, 5 to 200 ms long, as of keys, cutlery and doors."""
    total = np.zeros(length + sample_rate, np.float32)
    at = 0
    while at < length:
        time = np.arange(int(rng.uniform(0.005, 0.2) * sample_rate)) / sample_rate
        body = (
            rng.standard_normal(len(time)) if rng.random() < 0.6 else np.sin(2 * np.pi * rng.uniform(300, 6000) * time)
        )
        burst = body * np.exp(-time * rng.uniform(20, 300)) * rng.uniform(0.2, 1.0)
        total[at : at + len(burst)] += burst.astype(np.float32)
        at += int(rng.exponential(0.35) * sample_rate) + 1
    return total[:length]
