"""Acted speech with its text, from the adventure game Beneath a Steel Sky, version 0.0372, which Debian distributes.

``sky.dsk`` contains numbered files, ``sky.dnr`` is its index. The number of a line is its section times 4096 plus its
index in the section. Texts have a fixed prefix code (:data:`CODES`); a line's sound is packed (:mod:`.rnc`) 8-bit PCM
at 11,025 Hz. ScummVM's engine for the game documents these formats.

**Speakers** are found in the game's scripts: calls to speak have a figure, a line and a movement. The figure is a
number, or the script's own figure, nearly always the hero, or the figure that he talks to. That last one is labelled
with the script's number. A conversation is mostly one script, so one person may have several labels, and in a script
with three speakers one label has two voices.
"""

from __future__ import annotations

import random
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np

from models.speech.corpus import games, rnc
from models.speech.corpus.games import RATE, plain, trimmed
from models.speech.corpus.spoken import speak, words
from models.speech.data import Pcm, to_pcm

PACKAGE = "beneath-a-steel-sky"
LICENCE = (
    "Beneath a Steel Sky, all game content (C) Revolution Software Ltd: free to distribute and, marked as such, to "
    "modify, not to be sold by itself"
)
SOUND_RATE = 11025
HEADER = 22  # bytes before the contents of a packed file
PACKED = 0x80  # in its first byte
TEXTS = 60600  # number of the file with the texts of section 0
SCRIPTS = range(60400, 60407)
SOUNDS = 50000
#: For each section the number of its first line's sound, counted from :data:`SOUNDS`.
FIRST = (0, 600, 1100, 2430, 3380, 4530, 5080, 5230)
HERO = "FOSTER"
#: Opcodes of a script: a variable, a number, a call of a function; and the functions by which figures speak.
VARIABLE, NUMBER, CALL = 0, 2, 11
SPEAK = (4 * 35, 4 * 36, 4 * 37, 4 * 38)
#: The variables with the script's own figure, and with the figure that it talks to.
OWN, OTHER = 4 * 12, 4 * 120
#: Spoken forms of abbreviations; other words in capitals are only stressed.
ABBREVIATIONS = {
    "ID": "^I ^D", "HQ": "^H ^Q", "TV": "^T ^V", "VHS": "^V ^H ^S", "WD40": "^W ^D 40", "SOS23": "^S ^O ^S 23",
    "MRS": "Mrs", "ST": "Saint",
}  # fmt: skip

LONGEST = 16  # bits of a character
#: The characters of the English texts, each with its code.
CODES = """
    space 000 e 0010 a 0011 o 01000 s 01001 t 01010 n 01011 . 01100 i 01101 r 0111 end 100000 E 100001 u 10001
    m 10010 A 10011 l 101000 I 101001 d 101010 R 101011 N 101100 S 101101 T 10111 O 1100000 h 1100001 c 110001
    D 110010 g 110011 L 1101000 C 1101001 p 1101010 U 1101011 ! 1101100 y 1101101 M 110111 P 11100000 v 11100001
    H 1110001 ? 1110010 b 1110011 ' 11101000 f 11101001 , 1110101 G 1110110 B 1110111 V 111100000 k 111100001
    F 11110001 q 11110010 w 11110011 K 111101000 - 111101001 W 11110101 J 11110110 z 111110000 Y 111110001
    j 111110010 Q 1111101000 ) 111110101 Z 1111101100 : 1111110011 # 1111110101 x 11111101100 X 11111101101
    ` 111111100001 2 11111110001 0 111111100100 1 11111110011 ( 111111101001 3 111111110000 9 111111110001
    4 111111110011 8 1111111101001 " 111111110110 & 1111111110000 5 1111111110010 6 1111111110011 7 11111111110001
    $ 11111111110110 _ 11111111111001 % 111111111111001
"""


class Disk:
    """The files of the game, by number. Raises ``ValueError`` if index and data do not fit."""

    def __init__(self, folder: Path) -> None:
        self._bytes = (folder / "sky.dsk").read_bytes()
        index = (folder / "sky.dnr").read_bytes()
        count = int.from_bytes(index[:4], "little")
        if len(index) != 4 + 8 * count:
            raise ValueError(f"{folder / 'sky.dnr'}: {len(index)} bytes are not an index of {count} files")
        self._places: dict[int, tuple[int, int, bool]] = {}
        for i in range(4, len(index), 8):
            number, place, size = (int.from_bytes(index[i + a : i + b], "little") for a, b in ((0, 2), (2, 5), (5, 8)))
            start = (place & 0x7FFFFF) << (4 if place >> 23 else 0)
            self._places[number] = start, size & 0x3FFFFF, size >> 23 == 0
            if start + (size & 0x3FFFFF) > len(self._bytes):
                raise ValueError(f"{folder / 'sky.dsk'}: file {number} is beyond its end")

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __getitem__(self, number: int) -> bytes:
        """The contents of a file, unpacked and without a header."""
        start, size, headed = self._places[number]
        data = self._bytes[start : start + size]
        if not headed:
            return data
        contents = data[HEADER:]
        return rnc.unpacked(contents) if data[0] & PACKED and contents.startswith(rnc.MAGIC) else contents


def acted(folder: Path) -> Iterator[tuple[str, str, Pcm]]:
    """(speaker, text in spoken words, samples at 16 kHz) of all lines whose text is completely converted and whose
    length fits its sound."""
    disk = Disk(folder)
    who = speakers(disk)
    for number, text in lines(disk).items():
        spoken = said(text, random.Random(number))
        if spoken is None:
            continue
        pcm = trimmed(decoded(disk[sound_of(number)]))
        if games.paced(spoken, pcm):
            yield who.get(number, HERO), spoken, pcm


def sound_of(number: int) -> int:
    """The number of the file with a line's sound."""
    return SOUNDS + FIRST[number >> 12] + (number & 0xFFF)


def lines(disk: Disk) -> dict[int, str]:
    """Texts by number, of all lines that have a sound."""
    found = {}
    for section in range(len(FIRST)):
        if TEXTS + section in disk:
            for i, text in enumerate(texts(disk[TEXTS + section])):
                if text and sound_of(section << 12 | i) in disk:
                    found[section << 12 | i] = text
    return found


@lru_cache(1)
def _characters() -> dict[str, str]:
    """Characters by their code; ``""`` ends a text."""
    names = {"space": " ", "end": ""}
    pairs = CODES.split()
    return {bits: names.get(name, name) for name, bits in zip(pairs[::2], pairs[1::2], strict=True)}


def texts(data: bytes) -> Iterator[str]:
    """The texts of a section; ``""`` for a text with a character that is not in :data:`CODES`.

    Sizes are counted in pairs of bits. The sizes of all texts precede the texts; before them are the sums of each 32.
    """
    sizes_at, texts_at = struct.unpack_from("<HH", data)
    sizes = [(size & 0x7F) << 3 if size & 0x80 else size for size in data[sizes_at:texts_at]]
    blocks = [0, *accumulate(struct.unpack_from(f"<{(sizes_at - 4) // 2}H", data, 4))]
    bits = "".join(f"{byte:08b}" for byte in data[texts_at:])
    for i in range(len(sizes)):
        place = 2 * (blocks[i // 32] + sum(sizes[i // 32 * 32 : i]))
        yield _text(bits, place)


def _text(bits: str, place: int) -> str:
    characters, text, end = _characters(), "", place + 1
    while end <= len(bits):
        character = characters.get(bits[place:end])
        if character == "":
            return text
        if character:
            text, place = text + character, end
        end += 1
        if end - place > LONGEST:
            break
    return ""


def speakers(disk: Disk) -> dict[int, str]:
    """The speaker of each line. Lines that no script speaks are missing: those that the hero can choose."""
    found: dict[int, str] = {}
    for module, number in enumerate(SCRIPTS):
        if number not in disk:
            continue
        data = disk[number]
        code = struct.unpack(f"<{len(data) // 2}H", data[: len(data) // 2 * 2])
        starts = _starts(code)
        for i in range(len(code) - 8):
            if code[i + 6] != CALL or code[i + 7] != 3 or code[i + 8] not in SPEAK:
                continue
            kind, figure, second, line, third = code[i : i + 5]
            if second == third == NUMBER:
                if kind == VARIABLE and figure == OTHER:
                    found.setdefault(line, f"script {module}.{bisect_right(starts, i)}")
                elif kind == NUMBER:
                    found.setdefault(line, f"figure {figure}")
                elif kind == VARIABLE and figure == OWN:
                    found.setdefault(line, HERO)
    return found


def _starts(code: tuple[int, ...]) -> list[int]:
    """The starts of a module's scripts, from the table before the first one, sorted."""
    first = len(code)
    starts = []
    for i, start in enumerate(code):
        if i >= first:
            break
        starts.append(start)
        first = min(first, start or first)
    return sorted(start for start in starts if start)


def said(text: str, rng: random.Random) -> str | None:
    """The spoken words of a line, ``None`` if it has no words or can't be converted."""
    if re.search(r"[(\[<]", text):
        return None
    if "`" in text:  # a quotation, and the mark that ends it
        text = re.sub(r"`|'(?!\w)", "", text)
    text = re.sub(r"[A-Z][A-Z0-9']*[A-Z0-9]", lambda m: ABBREVIATIONS.get(m[0], m[0].lower()), text)
    spoken = speak(plain(text), rng)
    noises = spoken and any(len(word) > 1 and not re.search("[AEIOUY]", word) for word in words(spoken))
    return None if noises else spoken


def decoded(sound: bytes) -> Pcm:
    """8-bit PCM at 11,025 Hz converted to int16 at 16 kHz."""
    import soxr

    wave = (np.frombuffer(sound, np.uint8).astype(np.float32) - 128.0) / 128.0
    return to_pcm(soxr.resample(wave, SOUND_RATE, RATE)) if len(wave) else np.zeros(0, np.int16)
