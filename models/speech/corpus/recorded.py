"""Recorded speech with its text: the prompts of Debian's Asterisk package, by one speaker."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.speech.corpus.spoken import speak

LICENCE = "CC BY-SA 3.0 (Asterisk core sounds, Allison Smith)"
RATE = 16000

Pcm = NDArray[np.int16]


def prompts(folder: Path) -> Iterator[tuple[str, Pcm]]:
    """(text in spoken words, samples at 16 kHz) of the unpacked packages, without sounds that are not speech."""
    listing = folder / "usr" / "share" / "doc" / "asterisk-core-sounds-en" / "core-sounds-en.txt.gz"
    if not listing.exists():
        return
    sounds = {path.stem: path for path in folder.rglob("*.g722")}
    with gzip.open(listing, "rt") as file:
        for line in file:
            name, _, text = line.strip().partition(": ")
            path = sounds.get(name.rpartition("/")[2])
            if not name or name.startswith(";") or path is None or re.search(r"[\[<(]", text):
                continue
            spoken = speak(text, random.Random(name))
            if spoken:
                yield spoken, g722(path)


def g722(path: Path) -> Pcm:
    """A file as int16 at 16 kHz. Needs PyAV."""
    import av

    with av.open(str(path), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return np.concatenate(frames).astype(np.int16) if frames else np.zeros(0, np.int16)
