"""Lines of another adventure game, their sounds and who speaks, on files made here."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import pytest

from models.speech.corpus import sky
from models.speech.corpus.games import RATE
from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.corpus.sky import Disk, acted, lines, said, speakers, texts
from tests.models.corpus.test_rnc import packed

GAME = Packages(corpus_folder()).sky
SPEAK, OWN, OTHER = 4 * 36, 4 * 12, 4 * 120  # as the game has them
CODES = dict(zip(sky.CODES.split()[::2], sky.CODES.split()[1::2], strict=True))


def coded(text: str) -> str:
    """Bits in whole pairs."""
    bits = "".join(CODES["space" if character == " " else character] for character in text) + CODES["end"]
    return bits + "0" * (len(bits) % 2)


def section(said: list[str]) -> bytes:
    """A file with texts; a size of 128 pairs of bits or more is counted in eights."""
    bits = [coded(text) for text in said]
    bits = [text if len(text) < 256 else text + "0" * (-len(text) % 16) for text in bits]
    sizes = [len(text) // 2 for text in bits]
    blocks = [sum(sizes[i : i + 32]) for i in range(0, len(sizes), 32)]
    coded_sizes = bytes(size if size < 128 else 0x80 | size // 8 for size in sizes)
    whole = "".join(bits)
    whole += "0" * (-len(whole) % 8)
    table = 4 + 2 * len(blocks)
    data = bytes(int(whole[i : i + 8], 2) for i in range(0, len(whole), 8))
    return struct.pack(f"<HH{len(blocks)}H", table, table + len(sizes), *blocks) + coded_sizes + data


def sound(seconds: float) -> bytes:
    """A tone with silence around it, packed behind a header."""
    rate = sky.SOUND_RATE
    wave = np.concatenate([np.zeros(rate // 2), np.sin(np.arange(int(seconds * rate)) * 0.3), np.zeros(rate // 2)])
    return headed(packed(np.rint(128 + 100 * wave).astype(np.uint8).tobytes()), 0x81)


def headed(data: bytes, flags: int) -> bytes:
    return bytes([flags]) + bytes(sky.HEADER - 1) + data


def game(folder: Path, files: dict[int, bytes], plain: set[int]) -> Path:
    """``plain``: the files without a header. Every second one lies behind 8 MiB, as far as its place is counted in
    sixteens."""
    index, disk = len(files).to_bytes(4, "little"), bytearray()
    for i, (number, data) in enumerate(files.items()):
        if i % 2:
            disk += bytes(-len(disk) % 16)
        place = len(disk) >> 4 | 1 << 23 if i % 2 else len(disk)
        size = len(data) | (number in plain) << 23
        index += number.to_bytes(2, "little") + place.to_bytes(3, "little") + size.to_bytes(3, "little")
        disk += data
    (folder / "sky.dnr").write_bytes(index)
    (folder / "sky.dsk").write_bytes(disk)
    return folder


def script(*scripts: list[int]) -> bytes:
    """A module: where its scripts begin, and they."""
    starts = [len(scripts) + sum(map(len, scripts[:i])) for i in range(len(scripts))]
    words = [*starts, *(word for one in scripts for word in one)]
    return struct.pack(f"<{len(words)}H", *words)


def call(kind: int, figure: int, line: int, function: int = SPEAK) -> list[int]:
    return [kind, figure, sky.NUMBER, line, sky.NUMBER, 9, sky.CALL, 3, function]


def test_texts_of_all_sizes_are_found_by_their_numbers() -> None:
    said = [*(f"Line {i}, of 40." for i in range(40)), "So it goes on. " * 20, "", "The END?"]
    assert list(texts(section(said))) == said


def test_a_text_with_a_character_that_is_not_known_is_none() -> None:
    data = section(["Yes."]) + b"\xff" * 4
    table, start = struct.unpack_from("<HH", data)
    damaged = data[:start] + b"\xff" * (len(data) - start)
    assert table == 6
    assert list(texts(damaged)) == [""]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    first = ["?", "It is 6 inches LONG", "Mmf mgh gog!", "Not as long as its sound", "No sound for THIS one"]
    second = ["Hello, Joey, how ARE you?", "I am QUITE well", "We can CHOOSE this one"]
    tone = sound(1.4)
    files = {
        60600: section(first),
        60601: section(second),
        50001: tone, 50002: tone, 50003: sound(6.0),
        50600: tone, 50601: headed(bytes(range(256)) * 60, 0), 50602: tone,
        60400: script([19], call(sky.VARIABLE, OTHER, 1), [*call(sky.NUMBER, 7, 2), 13]),
        60401: script([*call(sky.VARIABLE, OWN, 4096), *call(sky.VARIABLE, OTHER, 4097), 0, 0]),
    }  # fmt: skip
    return game(tmp_path, files, plain={60600, 60601, 60400, 60401})


def test_lines_are_those_that_have_a_sound(disk: Path) -> None:
    assert lines(Disk(disk)) == {
        1: "It is 6 inches LONG",
        2: "Mmf mgh gog!",
        3: "Not as long as its sound",
        4096: "Hello, Joey, how ARE you?",
        4097: "I am QUITE well",
        4098: "We can CHOOSE this one",
    }


def test_scripts_say_who_speaks(disk: Path) -> None:
    assert speakers(Disk(disk)) == {1: "script 0.2", 2: "figure 7", 4096: sky.HERO, 4097: "script 1.1"}


def test_only_what_is_understood_and_of_the_expected_length_is_given(disk: Path) -> None:
    given = list(acted(disk))
    assert [(who, text) for who, text, _ in given] == [
        ("script 0.2", "It is six inches long"),
        (sky.HERO, "Hello, Joey, how are you?"),
        ("script 1.1", "I am quite well"),
        (sky.HERO, "We can choose this one"),
    ]
    pcm = given[0][2]
    assert 1.4 < len(pcm) / RATE < 1.9  # silence beyond .15 s is gone
    assert 20000 < np.abs(pcm).max() < 30000


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("I'VE never been SURER...", "I've never been surer"),
        ("It's an ID card, of MRS Piermont!", "It's an ^I ^D card, of missus Piermont!"),
        ("`Third prize - the DOGS' bowls.'", "Third prize the dogs bowls."),
        ("Who is `Reich', and why?", "Who is Reich, and why?"),
        ("Tch! COMPUTERS, eh?", None),
        ("(sigh)", None),
        ("?", None),
    ],
)
def test_stress_quotations_and_noises(text: str, spoken: str | None) -> None:
    assert said(text, random.Random(1)) == spoken


def test_an_index_that_does_not_fit_is_refused(disk: Path) -> None:
    index = (disk / "sky.dnr").read_bytes()
    (disk / "sky.dnr").write_bytes(index[:-1])
    with pytest.raises(ValueError, match="not an index"):
        Disk(disk)
    (disk / "sky.dnr").write_bytes(index)
    (disk / "sky.dsk").write_bytes((disk / "sky.dsk").read_bytes()[:-1])
    with pytest.raises(ValueError, match="beyond its end"):
        Disk(disk)


@pytest.mark.skipif(not GAME.exists(), reason="beneath-a-steel-sky is not in the corpus folder")
def test_the_game_itself_is_read() -> None:
    found = Disk(GAME)
    script, who = lines(found), speakers(found)
    assert len(script) == 3491
    assert script[0x1002] == "Weren't you told? ROUTINE INSPECTION."
    assert who[0x1002] == sky.HERO
    assert sum(number in who for number in script) > 3000
    assert len(set(who.values())) > 50
