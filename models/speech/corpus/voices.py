"""Voices: each speaks a text with random settings, which depend only on the given random generator."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import soxr
from numpy.typing import NDArray

from models.speech.corpus.g2p import Pronounce, timed
from models.speech.corpus.kokoro import Kokoro, VoiceBlend, blend
from models.speech.corpus.packages import Packages
from models.speech.corpus.spoken import words

Wave = NDArray[np.float32]
Spans = list[tuple[float, float]]
RATE = 16000  # of the corpus


@dataclass(frozen=True)
class SpokenSentence:
    """``wave``: float32 at 16 kHz; ``voice``: the speaker and the settings; ``times``: for each word the start and end
    of its spoken phones in seconds, empty if the voice does not report them."""

    wave: Wave
    voice: str
    times: list[Spans] = field(default_factory=list)


class Voices(Protocol):
    licence: str

    def speak(self, text: str, rng: random.Random) -> SpokenSentence: ...


MARKS = ",.?!;:"
AMERICAN, BRITISH = ("af_", "am_"), ("bf_", "bm_")
CHINESE = ("zf_", "zm_")


@dataclass(frozen=True)
class Speakers:
    """Shares of speakers: ``native`` ones, half of the others with a native voice in their blend; ``unchanged`` vocal
    tracts, and those of ``adults``, these included."""

    native: float = 0.7
    unchanged: float = 0.45
    adults: float = 0.85


EVERYBODY = Speakers()
LEARNERS = Speakers(native=0.3, unchanged=0.1, adults=0.35)


def draw_speaker(names: list[str], rng: random.Random, shares_of: Speakers = EVERYBODY) -> VoiceBlend:
    """One to three voices with random shares, native or with an accent, often a Chinese one."""
    native = [name for name in names if name.startswith(AMERICAN + BRITISH)]
    foreign = [name for name in names if name not in native]
    chinese = [name for name in foreign if name.startswith(CHINESE)]

    def shares(pool: list[str], extra: list[str] | None = None) -> dict[str, float]:
        count = rng.choices((1, 2, 3), (0.15, 0.45, 0.4))[0]
        chosen = rng.sample(pool, min(count, len(pool)))
        if extra:
            chosen[-1] = rng.choice(extra)
        weights = [rng.gammavariate(1.5, 1.0) + 0.05 for _ in chosen]
        return {name: weight / sum(weights) for name, weight in zip(chosen, weights, strict=True)}

    style = rng.random()
    if style < shares_of.native or not foreign:
        timbre = shares(native)
    elif style < (1.0 + shares_of.native) / 2:
        timbre = shares(native, chinese or foreign)
    else:
        timbre = shares(rng.choice((chinese or foreign, foreign)))
    return VoiceBlend(timbre, shares(native) if rng.random() < 0.25 else timbre)


class KokoroVoices:
    """Blends of Kokoro's voices, American and British, with random pace and vocal tract, sometimes that of a child."""

    licence = "Apache-2.0 (Kokoro-82M), MIT (its ONNX form)"

    def __init__(self, packages: Packages, speakers: Speakers = EVERYBODY) -> None:
        packages.importable()
        self.speakers = speakers
        self.kokoro = Kokoro(packages.model, packages.vocabulary, packages.voices)
        self.pronounce = {british: Pronounce(british) for british in (False, True)}

    def speak(self, text: str, rng: random.Random) -> SpokenSentence:
        speaker = draw_speaker(sorted(self.kokoro.voices), rng, self.speakers)
        share = sum(share for name, share in speaker.prosody.items() if name.startswith(BRITISH))
        british = rng.random() < 0.1 + 0.8 * share
        tract = draw_vocal_tract(rng, self.speakers)
        pace = rng.uniform(0.78, 1.22) * (0.9 if tract > 1.18 else 1.0)
        style = blend(self.kokoro.voices, speaker)
        groups = [phonemes for _, phonemes in self.pronounce[british].groups(text)]
        wave, bounds = self.kokoro(" ".join(groups), style, pace / tract)
        wave, cut = trimmed(scale_frequencies(wave, tract, 24000))
        accent = "british" if british else "american"
        name = f"kokoro {speaker.name} {accent} x{pace:.2f} t{tract:.2f}"
        return SpokenSentence(wave, name, self._times(groups, [float(bound) / tract - cut for bound in bounds]))

    def _times(self, groups: list[str], bounds: list[float]) -> list[Spans]:
        at, out = 0, []
        for phonemes in groups:
            starts, ends = [], bounds[at]
            for symbol in phonemes:
                starts.append(bounds[at])
                if symbol in self.kokoro.vocabulary:
                    at += 1
                    # a sentence mark is a pause, which is not part of the last phone
                    ends = bounds[at] if symbol not in MARKS else ends
            out.append(timed(phonemes, starts, ends))
            at += 1  # the space
        return out


def draw_vocal_tract(rng: random.Random, speakers: Speakers = EVERYBODY) -> float:
    """A factor of all resonances and of the pitch, as of another vocal tract: 1, near 1, or that of a child."""
    style = rng.random()
    if style < speakers.unchanged:
        return 1.0
    return rng.uniform(0.9, 1.13) if style < speakers.adults else rng.uniform(1.15, 1.38)


def scale_frequencies(wave: Wave, factor: float, rate: int) -> Wave:
    """``wave`` resampled from ``rate`` to 16 kHz with all frequencies times ``factor``. It gets shorter by that factor,
    so the speech must be slower before."""
    return soxr.resample(wave, rate * factor, RATE, quality="HQ")


def trimmed(wave: Wave, margin: float = 0.08) -> tuple[Wave, float]:
    """``wave`` without the ends that are quieter than 1 % of the peak, but with a ``margin`` in seconds; and the
    seconds cut from the start."""
    loud = np.flatnonzero(np.abs(wave) > 0.01 * max(1e-6, float(np.abs(wave).max(initial=0.0))))
    if not len(loud):
        return wave[:0], 0.0
    keep = int(margin * RATE)
    start = max(0, int(loud[0]) - keep)
    return np.ascontiguousarray(wave[start : loud[-1] + keep]), start / RATE


class HibariVoices:
    """One voice, sixty times as fast as Kokoro; its network's pitch and spectrum are varied before synthesis."""

    licence = "Apache-2.0 (hibari-tts)"

    def __init__(self, packages: Packages) -> None:
        packages.importable()
        from hibari import Hibari, dsp

        self.hibari, self.dsp = Hibari(), dsp
        self.pronounce = {british: Pronounce(british) for british in (False, True)}

    def speak(self, text: str, rng: random.Random) -> SpokenSentence:
        tract, pitch, tune = rng.uniform(0.82, 1.3), rng.uniform(0.55, 1.2), rng.uniform(0.4, 1.5)
        pace, british = rng.uniform(0.75, 1.25), rng.random() < 0.3
        ids = self.hibari.ids(self.pronounce[british](text))
        given = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([pace / tract], np.float32)}
        *parts, f0 = (out[0] for out in self.hibari.sess.run(None, given))
        voiced = f0 > 40
        middle = float(np.median(f0[voiced])) if voiced.any() else 1.0
        bent = middle * (np.maximum(f0, 1.0) / middle) ** tune * pitch
        f0 = np.where(voiced, np.clip(bent / tract, 45, 600), f0).astype(np.float32)
        wave = self.dsp.synth(*parts, f0, np.random.default_rng(rng.getrandbits(32)))
        manner = f"{'british' if british else 'american'} x{pace:.2f} t{tract:.2f} p{pitch:.2f} i{tune:.2f}"
        return SpokenSentence(trimmed(scale_frequencies(wave, tract, 24000))[0], f"hibari {manner}")


class DebianVoices:
    """flite's recorded voices and, less often, espeak-ng's formant voices."""

    licence = "flite: MIT-like; espeak-ng: GPL-3.0 (program; its speech is free)"

    def speak(self, text: str, rng: random.Random) -> SpokenSentence:
        from models.speech.synthetic import FLITE_VOICES, flite, random_voice, speak

        said = " ".join(words(text)).lower()
        tract = draw_vocal_tract(rng)
        if rng.random() < 0.6:
            voice = rng.choice(FLITE_VOICES)
            pcm, _, _ = flite(said, voice, RATE)
            name = f"flite {voice}"
        else:
            manner = random_voice(rng)
            pcm = speak(said, sample_rate=RATE, **manner)  # type: ignore[arg-type]
            name = f"espeak {manner['voice']}"
        wave = scale_frequencies(pcm.astype(np.float32) / 32768.0, tract, RATE)
        return SpokenSentence(trimmed(wave)[0], f"{name} t{tract:.2f}")
