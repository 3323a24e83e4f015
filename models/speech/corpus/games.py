"""Acted speech with its text, from the adventure game Flight of the Amazon Queen, which Debian distributes.

``queen.1c`` contains all its files. A line of dialogue is split into segments by ``*`` and two characters (a gesture);
the sound file of segment ``k`` has the line's name with ``k`` in hexadecimal appended. Lines are in ``*.DOG``
(conversations), ``*.CUT`` (scenes) and ``QUEEN2.JAS`` (the hero's remarks on things).
"""

from __future__ import annotations

import io
import random
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from models.speech.corpus.spoken import speak
from models.speech.data import Pcm, to_pcm

PACKAGE = "flight-of-the-amazon-queen"
LICENCE = (
    "Flight of the Amazon Queen, (C) John Passfield and Steven Stamatiadis: free to modify and to distribute with "
    "attribution, not to be sold by itself"
)
RATE = 16000
HEADER = 20  # bytes before the contents of a file of dialogue
HERO = "JOE"
#: Number of the hero's stock answers, which have the first numbers of his sounds; the lines of QUEEN2.JAS follow.
ANSWERS = 40
#: Fewest and most letters in a second of speech; others are shouts, songs, or lines that were shortened.
PACE = (5.0, 26.0)


class Line(NamedTuple):
    """The text of one sound file. ``speaker``: the hero, the figure he talks to, or a scene with several people."""

    speaker: str
    text: str


class Archive:
    """The files in ``queen.1c``, by name. Raises ``ValueError`` for another file."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.read_bytes()
        if self._bytes[:4] != b"QTBL":
            raise ValueError(f"{path}: does not begin with QTBL")
        (count,) = struct.unpack_from(">H", self._bytes, 13)
        self._places: dict[str, tuple[int, int]] = {}
        for i in range(count):
            name, _, start, size = struct.unpack_from(">12sBII", self._bytes, 15 + 21 * i)
            self._places[name.rstrip(b"\0").decode("cp437")] = start, size

    def names(self, ending: str) -> list[str]:
        return [name for name in self._places if name.endswith(ending)]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> bytes:
        start, size = self._places[name]
        return self._bytes[start : start + size]


def acted(path: Path) -> Iterator[tuple[str, str, Pcm]]:
    """(speaker, text in spoken words, samples at 16 kHz) of all lines whose text is completely converted and whose
    length fits its sound."""
    archive = Archive(path)
    for name, line in sorted(lines(archive).items()):
        if name not in archive or re.search(r"[(\[<]", line.text):  # "(sigh)"
            continue
        spoken = speak(plain(line.text), random.Random(name))
        if not spoken:
            continue
        pcm = trimmed(decoded(archive[name]))
        if paced(spoken, pcm):
            yield line.speaker, spoken, pcm


def paced(spoken: str, pcm: Pcm) -> bool:
    """Whether the number of letters fits the duration of the sound."""
    return bool(len(pcm)) and PACE[0] <= sum(map(str.isalpha, spoken)) * RATE / len(pcm) <= PACE[1]


def lines(archive: Archive) -> dict[str, Line]:
    """Lines by the name of their sound file, which may not exist."""
    found: dict[str, Line] = {}

    def add(prefix: str, text: str, speaker: str) -> None:
        for number, segment in segments(text):
            name = f"{prefix}{number:x}".replace(" ", "0").upper() + ".SB"
            found[name] = Line(speaker, segment)

    for name in archive.names(".DOG"):
        for prefix, text, hero in conversation(archive[name][HEADER:]):
            add(prefix, text, HERO if hero else re.sub(r"\d*\.DOG$", "", name))
    for name in archive.names(".CUT"):
        for number, text in enumerate(scene(archive[name][HEADER:]), 1):
            add(f"{name.removesuffix('.CUT').ljust(5, '_')}{number:02d}", text, f"scene {name.removesuffix('.CUT')}")
    if "QUEEN2.JAS" in archive:
        for number, text in enumerate(archive["QUEEN2.JAS"].decode("cp437").split("\r\n"), ANSWERS + 1):
            add(f"{HERO}{number:04d}", text, HERO)
    return found


def conversation(data: bytes) -> Iterator[tuple[str, str, bool]]:
    """(prefix of the sound's name, line, whether the hero speaks) of a file of dialogue without its header."""
    levels, _, key, his, theirs = struct.unpack_from(">5h", data)
    other, _, again = struct.unpack_from(">3H", data, 22)
    own = 32 + abs(levels) * 96
    for start, count, letter in ((own, his, "J"), (other, theirs, "P")):
        place = start
        for _ in range(count):
            (number,) = struct.unpack_from(">2xH", data, place)
            text, place = string(data, place + 4, 4)
            yield f"{key:2d}{number:4x}{letter}", text, letter == "J"
    if not struct.unpack_from(">H", data, own + 2)[0]:
        yield f"{key:2d}SSSSJ", string(data, own + 4)[0], True
    for letter in "PJ":
        text, again = string(data, again)
        yield f"{key:2d}XXXX{letter}", text, letter == "J"


def scene(data: bytes) -> Iterator[str]:
    """The lines of a scene, with empty ones; the first string is a stage direction and left out."""
    count, _, _, place = struct.unpack_from(">2hHH", data, 2)
    _, place = string(data, place)
    for _ in range(abs(count)):
        text, place = string(data, place)
        yield "" if text.startswith("#") else text


def string(data: bytes, place: int, align: int = 2) -> tuple[str, int]:
    """(a length-prefixed string, the place of the next one)."""
    size, start = data[place], place + 1
    text = data[start : start + size].decode("cp437")
    return text, start + size + -(start + size) % align if size else start


def segments(text: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the parts of a line between commands: ``*`` and two characters, ``*XY`` with 11 more."""
    for number, part in enumerate(re.split(r"\*(?:XY.{11}|..?)", text), 1):
        if part.strip():
            yield number, part


def plain(text: str) -> str:
    """The text without ellipses (some are a special character of the game) and quotation marks."""
    return re.sub(r"\s+", " ", re.sub(r"\^_|\.{2,}", " ", text).replace('"', " ")).strip()


def decoded(sound: bytes) -> Pcm:
    """MP3 (11 kHz) decoded to int16 at 16 kHz; empty if it can't be decoded."""
    import soxr

    try:
        wave, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    except soundfile.LibsndfileError:
        return np.zeros(0, np.int16)
    return to_pcm(soxr.resample(wave, rate, RATE)) if len(wave) else np.zeros(0, np.int16)


def trimmed(pcm: Pcm, margin: float = 0.15) -> Pcm:
    """``pcm`` with at most ``margin`` seconds of silence at both ends."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > max(200, int(np.abs(pcm).max(initial=0)) // 40))
    if not len(loud):
        return pcm[:0]
    keep = int(margin * RATE)
    return pcm[max(0, loud[0] - keep) : loud[-1] + keep]
