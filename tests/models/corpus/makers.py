"""Shards that need no voice: tones, made in a process of their own as real ones are."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.speech.corpus import english, shards
from models.speech.corpus.shards import RATE, CorpusRow

BEEPS = 3
#: Where this variable names a file, a shard with an odd number says so there when it is half done, and waits.
HANGS = "STREAMER_TEST_HANGS"


def nothing(folder: Path) -> None:
    """No voices are wanted."""


def strings_beeping(folder: Path, data: Path, seed: int, index: int) -> float:
    return beeping(folder, data, seed, index, "digits")


def beeping(folder: Path, data: Path, seed: int, index: int, corpus: str = "english") -> float:
    rng = random.Random(f"{seed}-{index}")

    def beeps() -> Iterator[tuple[CorpusRow, np.ndarray]]:
        for i in range(BEEPS):
            if i and index % 2 and HANGS in os.environ:
                Path(os.environ[HANGS]).touch()
                time.sleep(600)
            wave = np.sin(np.arange(RATE // 10 * rng.randint(5, 9)) * rng.uniform(0.05, 0.5))
            row = CorpusRow(
                "tone", f"tone {index}", "BEEP NOW", [["B", "IY", "P"], ["N", "AW"]], "made", "voice none; text none"
            )
            yield row, (wave * 9000).astype(np.int16)

    return shards.write(folder / corpus, english.name_of(index, corpus), beeps())


def main(folder: str) -> None:
    english.build(Path(folder), Path(folder), 5 / 3600, prepare=nothing, make=beeping)


if __name__ == "__main__":
    import sys

    main(sys.argv[1])
