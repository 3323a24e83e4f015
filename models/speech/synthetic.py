"""Synthetic speech for training; no reported score uses it.

espeak-ng has many voices, rates and pitches, and sounds like a machine; flite has four recorded voices (Black and
Lenzo 2001) and reports the times of the phones.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import wave
from collections.abc import Iterator, Sequence

import numpy as np
import soxr

from models.speech.data import DIGITS, PHONES, Pcm, Utterance, cached, pronounce

ACCENTS = ("en-us", "en-gb", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029")
VARIANTS = (
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alex Alicia Andrea Andy Annie Denis Diogo Gene Hugo Jacky Lee Marco "
    "Mario Michael Mike Nguyen adam anika antonio aunty belinda benjamin boris caleb david ed edward grandma "
    "grandpa gustave iven john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 linda max michel miguel pablo paul "
    "pedro quincy rob robert sandro shelby steph steph2 steph3 travis victor zac"
).split()
#: The plain voices, as of ``espeak-ng -v en-us`` without options.
PLAIN = ("en-us", "en-gb", "en")


def speak(text: str, voice: str, sample_rate: int, *, rate: int = 160, pitch: int = 50, gap: int = 0) -> Pcm:
    """One sentence by espeak-ng, int16 at ``sample_rate`` Hz. ``rate``: words a minute, ``gap``: 10 ms units."""
    command = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "-g", str(gap), "--stdout", text]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(data)) as file:
        source = file.getframerate()
        # espeak-ng streams, so the length in its header is wrong: take all bytes after the header
        pcm = np.frombuffer(data[44 : 44 + (len(data) - 44) // 2 * 2], np.int16)
    return soxr.resample(pcm, source, sample_rate)


def random_voice(rng: random.Random) -> dict[str, object]:
    """A random voice; one in six is a plain one."""
    if rng.random() < 1 / 6:
        return {"voice": rng.choice(PLAIN), "rate": rng.choice((160, 175, 140, 120)), "pitch": 50, "gap": 0}
    voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    return {"voice": voice, "rate": rng.randint(95, 190), "pitch": rng.randint(20, 90), "gap": rng.choice((0, 0, 3, 8))}


def digit_strings(count: int, sample_rate: int = 8000, seed: int = 1) -> list[Utterance]:
    """Strings of 1 to 10 digits by espeak-ng."""

    def make() -> Iterator[Utterance]:
        rng = random.Random(seed)
        for i in range(count):
            words = [rng.choice(DIGITS) for _ in range(rng.randint(1, 10))]
            separator = rng.choice((" ", " ", ", "))
            pcm = speak(separator.join(words).lower(), sample_rate=sample_rate, **random_voice(rng))  # type: ignore[arg-type]
            yield Utterance(f"digits{i}", f"espeak{i}", " ".join(words), [pronounce(w)[0] for w in words], 0, pcm)

    return cached(f"espeak-digits-{count}-{sample_rate}-{seed}", make)


FLITE_VOICES = ("awb", "kal16", "rms", "slt")
#: flite's phones that have another name in ARPAbet without stress.
FLITE_PHONES = {"AX": "AH", "AXR": "ER", "EL": "L", "EM": "M", "EN": "N"}


def flite(text: str, voice: str, sample_rate: int) -> tuple[Pcm, list[str], list[list[int]]]:
    """A sentence by flite: int16 at ``sample_rate`` Hz, its phones, and their segments (see :class:`Utterance`)."""
    path = f"/dev/fd/{(write := os.memfd_create('flite'))}"
    try:
        command = ["flite", "-voice", voice, "-psdur", "-t", text, "-o", path]
        timings = subprocess.run(command, capture_output=True, check=True, text=True, pass_fds=(write,)).stdout
        data = os.pread(write, os.fstat(write).st_size, 0)
    finally:
        os.close(write)
    with wave.open(io.BytesIO(data)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        pcm = pcm if file.getframerate() == sample_rate else soxr.resample(pcm, file.getframerate(), sample_rate)
    phones, segments, start = [], [], 0
    for name, end in (entry.split(":") for entry in timings.split()):
        phone, stop = FLITE_PHONES.get(name.upper(), name.upper()), round(100 * float(end))
        if phone in PHONES:
            phones.append(phone)
            segments.append([start, stop])
        start = stop
    return pcm, phones, segments


def read_by_flite(name: str, texts: Sequence[str], sample_rate: int, seed: int = 1) -> list[Utterance]:
    """One utterance for each text, with a random voice."""

    def make() -> Iterator[Utterance]:
        rng = random.Random(seed)
        for i, text in enumerate(texts):
            voice = rng.choice(FLITE_VOICES)
            pcm, phones, segments = flite(text.lower(), voice, sample_rate)
            yield Utterance(f"{name}{i}", f"flite-{voice}", text, [phones], 0, pcm, segments)

    return cached(f"flite-{name}-{len(texts)}-{sample_rate}-{seed}", make)


def flite_digits(count: int, sample_rate: int = 8000, seed: int = 1) -> list[Utterance]:
    """Strings of 1 to 8 digits by flite."""
    rng = random.Random(f"digits{seed}")
    texts = [" ".join(rng.choice(DIGITS) for _ in range(rng.randint(1, 8))) for _ in range(count)]
    return read_by_flite("digits", texts, sample_rate, seed)
