"""Synthetic speech by espeak-ng: many voices, rates and pitches. For training only, never for a reported score."""

from __future__ import annotations

import io
import random
import subprocess
import wave
from collections.abc import Iterator

import numpy as np
import soxr

from models.data import DIGITS, Pcm, Utterance, cached, data_folder, pronounce, speechocean

ACCENTS = ("en-us", "en-gb", "en-us", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029")
VARIANTS = [
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "Alex",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "Denis",
    "Diogo",
    "Gene",
    "Hugo",
    "Jacky",
    "Lee",
    "Marco",
    "Mario",
    "Michael",
    "Mike",
    "Nguyen",
    "adam",
    "anika",
    "antonio",
    "aunty",
    "belinda",
    "benjamin",
    "boris",
    "caleb",
    "david",
    "ed",
    "edward",
    "grandma",
    "grandpa",
    "gustave",
    "iven",
    "john",
    "kaukovalta",
    "klatt",
    "klatt2",
    "klatt3",
    "klatt4",
    "klatt5",
    "linda",
    "max",
    "michel",
    "miguel",
    "pablo",
    "paul",
    "pedro",
    "quincy",
    "rob",
    "robert",
    "sandro",
    "shelby",
    "steph",
    "steph2",
    "steph3",
    "travis",
    "victor",
    "zac",
]
#: The plain voices: what everybody gets who says ``espeak-ng -v en-us`` without options.
PLAIN = ("en-us", "en-gb", "en")


def speak(text: str, voice: str, sample_rate: int, *, rate: int = 160, pitch: int = 50, gap: int = 0) -> Pcm:
    """One sentence by espeak-ng, int16 at ``sample_rate`` Hz. ``rate``: words a minute, ``gap``: 10 ms units."""
    command = ["espeak-ng", "-v", voice, "-s", str(rate), "-p", str(pitch), "-g", str(gap), "--stdout", text]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(data)) as file:
        source = file.getframerate()
        # espeak-ng streams, so its header does not know the length: take the bytes behind the header
        pcm = np.frombuffer(data[44 : 44 + (len(data) - 44) // 2 * 2], np.int16)
    return soxr.resample(pcm, source, sample_rate)


def _voice(rng: random.Random) -> dict[str, object]:
    """A random voice; one in six is a plain one."""
    if rng.random() < 1 / 6:
        return {"voice": rng.choice(PLAIN), "rate": rng.choice((160, 175, 140, 120)), "pitch": 50, "gap": 0}
    voice = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    return {"voice": voice, "rate": rng.randint(95, 190), "pitch": rng.randint(20, 90), "gap": rng.choice((0, 0, 3, 8))}


def digit_strings(count: int, sample_rate: int = 8000, seed: int = 1) -> list[Utterance]:
    """Strings of 1 to 10 digits."""

    def make() -> Iterator[Utterance]:
        rng = random.Random(seed)
        for i in range(count):
            words = [rng.choice(DIGITS) for _ in range(rng.randint(1, 10))]
            separator = rng.choice((" ", " ", ", "))
            pcm = speak(separator.join(words).lower(), sample_rate=sample_rate, **_voice(rng))  # type: ignore[arg-type]
            yield Utterance(f"digits{i}", f"espeak{i}", " ".join(words), [pronounce(w)[0] for w in words], 0, pcm)

    return cached(f"espeak-digits-{count}-{sample_rate}-{seed}", make)


def sentences(count: int, sample_rate: int = 16000, seed: int = 1) -> list[Utterance]:
    """Phrases of 2 to 10 words cut from the shared text and from the training transcripts."""

    def make() -> Iterator[Utterance]:
        rng = random.Random(seed)
        book = (data_folder() / "text" / "sentences.txt").read_text().splitlines()
        lessons = [u.text for u in speechocean("train", sample_rate)]
        made = 0
        while made < count:
            if rng.random() < 0.3:
                words = rng.choice(lessons).split()
            else:
                whole, length = rng.choice(book).split(), rng.randint(2, 10)
                start = rng.randrange(max(1, len(whole) - length + 1))
                words = whole[start : start + length]
            spelt = [pronounce(word) for word in words]
            if not words or not all(spelt):
                continue
            pcm = speak(" ".join(words).lower(), sample_rate=sample_rate, **_voice(rng))  # type: ignore[arg-type]
            yield Utterance(f"phrase{made}", f"espeak{made}", " ".join(words), [s[0] for s in spelt], 0, pcm)
            made += 1

    return cached(f"espeak-sentences-{count}-{sample_rate}-{seed}", make)
