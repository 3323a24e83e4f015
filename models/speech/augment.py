"""Augmentation of waveforms (speed, reverberation, noise, gain, pauses, joining) and of features (SpecAugment)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.speech.data import Pcm

Wave = NDArray[np.float32]  # full scale is 1


@dataclass(frozen=True)
class Augmentation:
    """Probabilities and ranges of augmentation. Speeds are factors of both tempo and pitch, as of a tape."""

    speeds: tuple[float, float] = (0.88, 1.14)
    speed: float = 0.7
    noise: float = 0.5
    snr: tuple[float, float] = (3.0, 30.0)  # dB
    reverb: float = 0.25
    narrow: float = 0.0  # probability of a telephone's bandwidth, 4 kHz
    gain: tuple[float, float] = (-18.0, 6.0)  # dB
    before: tuple[float, float] = (0.0, 0.5)  # seconds of pause
    after: tuple[float, float] = (0.1, 0.6)
    frequency_masks: int = 2
    frequency_width: int = 7  # bands
    time_masks: int = 3
    time_width: int = 20  # frames of 10 ms
    warp: float = 0.0  # largest relative change of the vocal tract's length
    tilt: float = 0.0  # standard deviation of a random smooth filter, in nepers of energy
    # probabilities, used by :class:`models.speech.scenes.SpeechScenes` only:
    crosstalk: float = 0.0
    microphone: float = 0.0
    codec: float = 0.0
    clip: float = 0.0
    step: float = 0.0


def change_speed(wave: Wave, factor: float, sample_rate: int) -> Wave:
    return soxr.resample(wave, sample_rate * factor, sample_rate, quality="LQ")


def telephone(wave: Wave, sample_rate: int) -> Wave:
    """The wave after a channel with a sample rate of 8 kHz, of the same length."""
    narrow = soxr.resample(soxr.resample(wave, sample_rate, 8000), 8000, sample_rate)
    return np.pad(narrow, (0, max(0, len(wave) - len(narrow))))[: len(wave)]


def impulse_response(rng: np.random.Generator, sample_rate: int) -> Wave:
    """A small synthetic room: the direct sound, then noise that decays by 60 dB in 0.1 to 0.6 s."""
    decay = rng.uniform(0.1, 0.6)
    length = int(sample_rate * min(0.35, decay))
    time = np.arange(length) / sample_rate
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * time / decay)
    tail[: int(sample_rate * rng.uniform(0.001, 0.01))] = 0.0
    tail *= rng.uniform(0.1, 0.8) / max(1e-6, float(np.sqrt(np.sum(tail**2))))
    tail[0] = 1.0
    return tail.astype(np.float32)


def convolve(wave: Wave, response: Wave) -> Wave:
    """The first len(wave) samples of the convolution, by overlap-free FFT."""
    size = 1 << (len(wave) + len(response) - 2).bit_length()
    product = torch.fft.rfft(torch.from_numpy(wave), size) * torch.fft.rfft(torch.from_numpy(response), size)
    return torch.fft.irfft(product, size)[: len(wave)].numpy()


def coloured_noise(rng: np.random.Generator, length: int) -> Wave:
    """Noise with a power spectrum of f^-a, a between 0 (white) and 2 (brown), at unit power."""
    size = 1 << 14
    spectrum = rng.standard_normal(size // 2 + 1) + 1j * rng.standard_normal(size // 2 + 1)
    spectrum[0] = 0.0
    spectrum[1:] *= np.arange(1, size // 2 + 1) ** (-rng.uniform(0.0, 1.0))
    piece = np.fft.irfft(spectrum, size).astype(np.float32)
    piece /= max(1e-9, float(piece.std()))
    return np.resize(np.roll(piece, int(rng.integers(size))), length)


class Waveforms:
    """Random waveform augmentation. ``noise``: a recording of noise; empty for synthetic noise only."""

    def __init__(self, options: Augmentation, sample_rate: int, noise: Pcm, rng: np.random.Generator) -> None:
        self.options, self.sample_rate, self.rng = options, sample_rate, rng
        self.recording = noise.astype(np.float32) / 32768.0

    def pause(self, low: float, high: float, level: float) -> Wave:
        """A pause of ``low`` to ``high`` seconds: noise of a deviation up to ``level``, sometimes digital silence."""
        length = int(self.rng.uniform(low, high) * self.sample_rate)
        if self.rng.random() < 0.3:
            return np.zeros(length, np.float32)
        return (self.rng.standard_normal(length) * level * self.rng.uniform(0.2, 1.0)).astype(np.float32)

    def respeed(self, wave: Wave, factor: float) -> Wave:
        return wave if factor == 1.0 else change_speed(wave, factor, self.sample_rate)

    def join(self, waves: list[Wave], gaps: tuple[float, float]) -> tuple[Wave, list[int]]:
        """The recordings concatenated, with pauses of ``gaps`` seconds as quiet as the first one's quietest parts; and
        the first sample of each."""
        level = quiet_level(waves[0], self.sample_rate)
        parts, starts = [waves[0]], [0]
        for wave in waves[1:]:
            pause = self.pause(*gaps, level)
            starts.append(starts[-1] + len(parts[-1]) + len(pause))
            parts += [pause, wave]
        return np.concatenate(parts), starts

    def room(self, wave: Wave) -> tuple[Pcm, int]:
        """Add pauses before and after, reverberation, noise and gain, and convert to int16. Also returns the number of
        samples before the recording."""
        options, rng = self.options, self.rng
        level = quiet_level(wave, self.sample_rate)
        before = self.pause(*options.before, level)
        wave = np.concatenate([before, wave, self.pause(*options.after, level)])
        if rng.random() < options.reverb:
            wave = convolve(wave, impulse_response(rng, self.sample_rate))
        power = float(np.mean(np.square(wave))) + 1e-9
        if rng.random() < options.noise:
            if rng.random() < 0.5 and len(self.recording):
                start = int(rng.integers(len(self.recording)))
                noise = np.take(self.recording, np.arange(start, start + len(wave)), mode="wrap")
            else:
                noise = coloured_noise(rng, len(wave))
            snr = rng.uniform(*options.snr)
            wave = wave + noise * np.float32(np.sqrt(power / (np.mean(np.square(noise)) + 1e-9) / 10 ** (snr / 10)))
        if rng.random() < options.narrow:
            wave = telephone(wave, self.sample_rate)
        peak = float(np.abs(wave).max()) + 1e-6
        gain = min(10 ** (rng.uniform(*options.gain) / 20) * 0.5 / peak, 8.0)
        return np.clip(np.rint(wave * (gain * 32768.0)), -32768, 32767).astype(np.int16), len(before)


def quiet_level(wave: Wave, sample_rate: int) -> float:
    """The level of the background: the standard deviation that a tenth of a recording's 20 ms pieces stay below."""
    size = sample_rate // 50
    pieces = wave[: len(wave) // size * size].reshape(-1, size)
    return float(np.quantile(pieces.std(axis=1), 0.1)) if len(pieces) else 0.0


def spec_augment(features: Tensor, options: Augmentation, rng: np.random.Generator) -> Tensor:
    """SpecAugment (Park et al. 2019, arXiv 1904.08779) without time warping: masks random bands and times with 0, the
    mean.

    ``features``: normalised [B, T, F], changed in place (they need no gradient).
    """
    _, steps, bands = features.shape
    for row in features:
        for _ in range(options.frequency_masks):
            width = int(rng.integers(options.frequency_width + 1))
            start = int(rng.integers(bands - width + 1))
            row[:, start : start + width] = 0.0
        for _ in range(options.time_masks):
            width = int(rng.integers(min(options.time_width, steps // 4) + 1))
            start = int(rng.integers(steps - width + 1))
            row[start : start + width] = 0.0
    return features


def warp_spectrum(energies: Tensor, mels: Tensor, options: Augmentation, rng: np.random.Generator) -> Tensor:
    """Random vocal tracts and microphones, for log-mel ``energies`` [B, T, F] before normalisation; ``mels`` [F]: band
    centres.

    Vocal-tract length perturbation (Jaitly and Hinton 2013) by linear interpolation between bands, with one factor for
    each row; then a random smooth filter, the sum of three cosines over the bands.
    """
    if not options.warp and not options.tilt:
        return energies
    rows, _, bands = energies.shape
    hz = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    factors = torch.from_numpy(np.exp(rng.uniform(-1, 1, rows) * np.log1p(options.warp))).float()[:, None]
    wanted = 2595.0 * torch.log10(1.0 + hz[None] * factors / 700.0)  # each band's source, in mel
    place = torch.from_numpy(np.interp(wanted.numpy(), mels.numpy(), np.arange(bands))).float()
    # hat functions: row f of the matrix holds the two weights of the neighbours of its place
    matrix = (1 - (place[:, :, None] - torch.arange(bands)).abs()).clamp(min=0)  # [B, F, F]
    warped = energies @ matrix.transpose(1, 2)
    waves = torch.cos(torch.pi * torch.arange(1, 4)[:, None] * (torch.arange(bands) + 0.5) / bands)  # [3, F]
    heights = torch.from_numpy(rng.standard_normal((rows, 3)) * options.tilt).float()
    return warped + (heights @ waves)[:, None]
