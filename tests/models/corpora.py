"""Tiny corpora in the layouts of the real ones, made of noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def recording(path: Path, seconds: float, rate: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = np.random.default_rng(seed).standard_normal(int(seconds * rate)) * 0.05
    soundfile.write(path, wave, rate, format="FLAC", subtype="PCM_16")  # whatever the name says: readers look inside


def librispeech(root: Path) -> Path:
    """Three speakers of two sentences each in ``train-clean-100``; one sentence has a word that no dictionary knows."""
    texts = ["THE CAT SAT", "A DOG", "HELLO WORLD", "XYZZYQ CAT", "GOOD DAY", "READ THE BOOK"]
    for i, text in enumerate(texts):
        speaker, chapter = str(100 + i // 2), "7"
        folder = root / "train-clean-100" / speaker / chapter
        key = f"{speaker}-{chapter}-{i % 2:04d}"
        recording(folder / f"{key}.flac", 1.0 + 0.2 * i, 16000, i)
        with (folder / f"{speaker}-{chapter}.trans.txt").open("a") as file:
            file.write(f"{key} {text}\n")
    return root


def shared(root: Path) -> Path:
    """The layout of the shared data: speechocean762, isolated digits, kitchen noise, sentences."""
    ocean = root / "speech" / "speechocean762"
    for part, speaker, age in (("train", "0001", 6), ("train", "0002", 30), ("test", "0009", 20)):
        path = f"{speaker}/{speaker}0001.opus"
        recording(ocean / part / path, 1.5, 16000, int(speaker))
        with (ocean / part / "utterances.csv").open("a") as file:
            if not file.tell():
                file.write("path,speaker,age,gender,seconds,text\n")
            file.write(f"{path},{speaker},{age},f,1.5,ONE TWO\n")
        if part == "train":
            with (ocean / part / "phones.txt").open("a") as file:
                file.write(f"{path}\tW_B AH1_I N_E | T_B UW0_E\n")
    for speaker in ("george", "jackson"):
        for digit in range(3):
            recording(root / "speech" / "fsdd" / speaker / f"{digit}_0.flac", 0.4, 8000, digit)
    recording(root / "speech" / "noise" / "kitchen.opus", 2.0, 16000, 5)
    (root / "text").mkdir()
    (root / "text" / "sentences.txt").write_text("THE CAT SAT ON THE MAT\nIT WAS A GOOD DAY\n")
    return root
