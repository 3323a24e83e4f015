"""A corpus on disk: shards of some minutes, each a FLAC file and a table of its utterances.

The table is written last and renamed to its final name, so that a killed run leaves no incomplete shard: a shard exists
if its table does. Recordings are read one by one, when they are needed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from models.speech.data import DIGITS

Pcm = NDArray[np.int16]

RATE = 16000


@dataclass(frozen=True)
class CorpusRow:
    """One recording. ``phones``: a list for each word of ``text``; ``texts``: the source of the text; ``segments``:
    first frame of 10 ms of each phone and the one after its last, if the voice reports them; ``start`` and ``samples``:
    its place in the shard."""

    source: str
    voice: str
    text: str
    phones: list[list[str]]
    texts: str
    licence: str
    segments: list[list[int]] = field(default_factory=list)
    start: int = 0  # samples
    samples: int = 0

    @property
    def seconds(self) -> float:
        return self.samples / RATE


@dataclass
class Recording:
    """A row whose samples are read on access; has the properties of :class:`models.speech.data.Utterance`."""

    row: CorpusRow
    path: Path = field(repr=False)
    age: int = 0

    @property
    def key(self) -> str:
        return f"{self.path.stem}/{self.row.start}"

    @property
    def speaker(self) -> str:
        return self.row.voice

    @property
    def text(self) -> str:
        return self.row.text

    @property
    def phones(self) -> list[list[str]]:
        return self.row.phones

    @property
    def segments(self) -> list[list[int]]:
        return self.row.segments

    @property
    def samples(self) -> int:
        return self.row.samples

    @property
    def flat(self) -> list[str]:
        return [phone for word in self.row.phones for phone in word]

    @property
    def is_digits(self) -> bool:
        return set(self.text.split()) <= set(DIGITS)

    @property
    def pcm(self) -> Pcm:
        with soundfile.SoundFile(self.path) as file:
            file.seek(self.row.start)
            return file.read(self.row.samples, dtype="int16")


def write(folder: Path, name: str, made: Iterable[tuple[CorpusRow, Pcm]]) -> float:
    """Write shard ``name``; returns its seconds. If ``made`` raises, only a temporary file is left, which
    :func:`sweep` removes."""
    folder.mkdir(parents=True, exist_ok=True)
    sound, table = folder / f"{name}.flac", folder / f"{name}.jsonl"
    partial = folder / f"{name}.{os.getpid()}.tmp"
    rows, start = [], 0
    with soundfile.SoundFile(partial, "w", RATE, 1, subtype="PCM_16", format="FLAC") as file:
        for row, pcm in made:
            file.write(pcm)
            rows.append({**asdict(row), "start": start, "samples": len(pcm)})
            start += len(pcm)
    partial.replace(sound)
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    partial.replace(table)
    return start / RATE


def sweep(folder: Path) -> None:
    """Remove the leftovers of killed runs. No other process may write to the folder meanwhile."""
    for path in folder.glob("*.tmp"):
        path.unlink()
    for path in folder.glob("*.flac"):
        if not path.with_suffix(".jsonl").exists():
            path.unlink()


def names(folder: Path) -> list[str]:
    """The names of the finished shards, sorted."""
    return sorted(path.stem for path in folder.glob("*.jsonl"))


def read(folder: Path, name: str) -> list[Recording]:
    with (folder / f"{name}.jsonl").open() as file:
        return [Recording(CorpusRow(**json.loads(line)), folder / f"{name}.flac") for line in file]


def read_all(folder: Path) -> Iterator[Recording]:
    for name in names(folder):
        yield from read(folder, name)


def summary(folder: Path) -> list[dict[str, Any]]:
    """The table of a corpus: for each source the recordings, voices, words, hours and licences."""
    found: dict[str, dict[str, Any]] = {}
    for recording in read_all(folder):
        row = recording.row
        entry = found.setdefault(
            row.source,
            {"source": row.source, "recordings": 0, "voices": set(), "words": 0, "hours": 0.0, "licences": set()},
        )
        entry["recordings"] += 1
        entry["voices"].add(re.split(r" (?:american|british|t\d)", row.voice)[0])
        entry["words"] += len(row.phones)
        entry["hours"] += row.seconds / 3600
        entry["licences"].add(row.licence)
    return [
        {**entry, "voices": len(entry["voices"]), "licences": sorted(entry["licences"])} for entry in found.values()
    ]
