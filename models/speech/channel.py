"""Augmentation by the recording channel: microphones, codecs, clipping converters, level changes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import soundfile
import soxr

from models.speech.augment import Wave, telephone


def microphone(wave: Wave, sample_rate: int, rng: np.random.Generator) -> Wave:
    """A random smooth frequency response: a high-pass, a slope, one or two resonances, a low-pass."""
    size = 1 << (len(wave) - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1 / sample_rate)
    octaves = np.log2(np.maximum(hz, 20.0) / 1000.0)
    low, high = rng.uniform(20, 250), rng.uniform(0.4, 1.0) * sample_rate / 2
    response = hz**2 / (hz**2 + low**2) / (1 + (hz / high) ** 8)
    response *= 10 ** (rng.normal(0, 2.0) * octaves / 20)
    for _ in range(int(rng.integers(1, 3))):
        middle, width = rng.uniform(-2.5, 2.5), rng.uniform(0.2, 1.2)
        response *= 10 ** (rng.uniform(-9, 9) * np.exp(-(((octaves - middle) / width) ** 2)) / 20)
    return np.fft.irfft(np.fft.rfft(wave, size) * response, size)[: len(wave)].astype(np.float32)


def coded(wave: Wave, sample_rate: int, form: str, subtype: str, quality: float | None = None) -> Wave:
    """The wave after encoding and decoding in a format of libsndfile, of the same length. ``quality``: 0 (best) to 1.
    The formats used here add no delay."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", sample_rate, 1, subtype, format=form, compression_level=quality) as out:
        out.write(np.clip(wave, -1.0, 1.0))
    file.seek(0)
    back, _ = soundfile.read(file, dtype="float32")
    return np.pad(back, (0, max(0, len(wave) - len(back))))[: len(wave)]


def _by_telephone(form: str, subtype: str) -> Callable[[Wave, int, np.random.Generator], Wave]:
    def pass_on(wave: Wave, sample_rate: int, rng: np.random.Generator) -> Wave:
        narrow = soxr.resample(wave, sample_rate, 8000)
        return _fit(soxr.resample(coded(narrow, 8000, form, subtype), 8000, sample_rate), len(wave))

    return pass_on


def _fit(wave: Wave, length: int) -> Wave:
    return np.pad(wave, (0, max(0, length - len(wave))))[:length]


#: ``(wave, sample rate, generator) -> wave`` by name. Opus from about 25 kbit/s down to 7, MP3 from about 30 to 16.
CODECS: dict[str, Callable[[Wave, int, np.random.Generator], Wave]] = {
    "narrow": lambda wave, rate, rng: telephone(wave, rate),
    "telephone": _by_telephone("WAV", "ULAW"),
    "gsm": _by_telephone("WAV", "GSM610"),
    "opus": lambda wave, rate, rng: coded(wave, rate, "OGG", "OPUS", float(rng.uniform(0.9, 1.0))),
    "mp3": lambda wave, rate, rng: coded(wave, rate, "MP3", "MPEG_LAYER_III", float(rng.uniform(0.75, 0.95))),
    "adpcm": lambda wave, rate, rng: coded(wave, rate, "WAV", "IMA_ADPCM"),
}


def passed(wave: Wave, sample_rate: int, rng: np.random.Generator) -> Wave:
    """The wave after a random one of :data:`CODECS`, which it enters with a peak of half the full scale."""
    peak = float(np.abs(wave).max(initial=0.0)) + 1e-6
    name = rng.choice(list(CODECS))
    return CODECS[name](wave * np.float32(0.5 / peak), sample_rate, rng) * np.float32(2 * peak)


def clipped(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave with up to a fiftieth of the samples clipped, hard or soft."""
    stop = max(1e-6, float(np.quantile(np.abs(wave), 1 - 10 ** rng.uniform(-4, -1.7))))
    return (stop * np.tanh(wave / stop) if rng.random() < 0.4 else np.clip(wave, -stop, stop)).astype(np.float32)


def stepped(wave: Wave, rng: np.random.Generator) -> Wave:
    """The wave with one change of level, by up to 20 dB up or down, as by a speaker who moves or a gain control."""
    at = int(rng.integers(len(wave)))
    gain = np.ones(len(wave), np.float32)
    gain[at:] = 10 ** (rng.uniform(-20, 20) / 20)
    ramp = min(at, int(rng.integers(1, 1600)))
    gain[at - ramp : at] = np.linspace(1.0, gain[at], ramp)
    return wave * gain
