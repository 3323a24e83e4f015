"""Augmentation by acoustic scenes: rooms, microphones, noises, music, other speakers, codecs, levels; and scenes
without speech, whose label is empty."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from models.speech.augment import Augmentation, Wave, Waveforms, convolve, impulse_response, quiet_level
from models.speech.channel import clipped, microphone, passed, stepped
from models.speech.data import Pcm, to_pcm
from models.speech.noises import Noises


class SpeechScenes(Waveforms):
    """:class:`Waveforms` with more augmentation. ``neighbour``: returns speech of another person for the background."""

    def __init__(self, options: Augmentation, sample_rate: int, noise: Pcm, rng: np.random.Generator) -> None:
        super().__init__(options, sample_rate, noise, rng)
        self.noises = bank(sample_rate, noise.tobytes())
        self.neighbour: Callable[[], Wave] | None = None

    def room(self, wave: Wave) -> tuple[Pcm, int]:
        options, rng, rate = self.options, self.rng, self.sample_rate
        level = quiet_level(wave, rate)
        before = self.pause(*options.before, level)
        wave = np.concatenate([before, wave, self.pause(*options.after, level)])
        if rng.random() < options.step:
            wave = stepped(wave, rng)
        if rng.random() < options.reverb:
            wave = convolve(wave, impulse_response(rng, rate))
        power = float(np.mean(np.square(wave))) + 1e-9
        if rng.random() < options.noise:
            wave = wave + at_ratio(self.noises.draw(rng, len(wave)), power, rng.uniform(*options.snr))
        if rng.random() < options.crosstalk and self.neighbour is not None:
            wave = wave + at_ratio(self.afar(len(wave)), power, rng.uniform(12.0, 30.0))
        if rng.random() < options.microphone:
            wave = microphone(wave, rate, rng)
        if rng.random() < options.clip:
            wave = clipped(wave, rng)
        if rng.random() < options.codec:
            wave = passed(wave, rate, rng)
        peak = float(np.abs(wave).max()) + 1e-6
        return to_pcm(wave * np.float32(min(10 ** (rng.uniform(*options.gain) / 20) * 0.5 / peak, 8.0))), len(before)

    def afar(self, length: int) -> Wave:
        """``length`` samples with another speaker in strong reverberation."""
        assert self.neighbour is not None
        voice = convolve(self.neighbour(), impulse_response(self.rng, self.sample_rate))
        start = int(self.rng.integers(max(1, length - len(voice) // 2)))
        out = np.zeros(length, np.float32)
        piece = voice[: length - start]
        out[start : start + len(piece)] = piece
        return out

    def nothing(self, seconds: float) -> Pcm:
        """A scene without speech: a sequence of digital silence, dither, and noises at random levels."""
        rng, rate = self.rng, self.sample_rate
        pieces: list[Wave] = []
        left = int(seconds * rate)
        while left > 0:
            length = left if rng.random() < 0.6 else min(left, int(rng.uniform(0.5, max(1.0, seconds)) * rate))
            pieces.append(self._quiet(length))
            left -= length
        wave = np.concatenate(pieces)
        if rng.random() < self.options.microphone:
            wave = microphone(wave, rate, rng)
        # a codec adds its own artefacts, but digital silence stays as it is
        return to_pcm(passed(wave, rate, rng) if rng.random() < self.options.codec and wave.any() else wave)

    def _quiet(self, length: int) -> Wave:
        rng = self.rng
        kind = rng.random()
        if kind < 0.15:
            return np.full(length, rng.choice((0.0, 0.0, rng.uniform(-0.02, 0.02))), np.float32)
        if kind < 0.25:
            return rng.integers(-1, 2, length).astype(np.float32) / 32768
        level = 10 ** rng.uniform(0.0, 3.5) / 32768  # root mean square of 1 to 3000
        if kind < 0.4:
            return (rng.standard_normal(length) * level).astype(np.float32)
        return self.noises.draw(rng, length) * np.float32(level)


@lru_cache(2)
def bank(sample_rate: int, recording: bytes) -> Noises:
    """The noises, made once for all sources; ``recording``: bytes of int16."""
    return Noises(sample_rate, np.frombuffer(recording, np.int16).astype(np.float32) / 32768.0, seed=1)


def at_ratio(noise: Wave, power: float, decibels: float) -> Wave:
    """``noise`` scaled to ``decibels`` below ``power``."""
    return noise * np.float32(np.sqrt(power / (np.mean(np.square(noise)) + 1e-9) / 10 ** (decibels / 10)))
