"""Packed files, packed here, and those of a real game where it is there."""

from __future__ import annotations

import struct

import pytest

from models.speech.corpus.packages import Packages, corpus_folder
from models.speech.corpus.rnc import HEADER, MAGIC, unpacked
from models.speech.corpus.sky import HEADER as GAME_HEADER
from models.speech.corpus.sky import SOUNDS

GAME = Packages(corpus_folder()).sky


class Packer:
    """Writes what :mod:`models.speech.corpus.rnc` reads: bytes lie behind the word that was begun before them."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._word_at, self._used = 0, 16
        self.bits(0, 2)

    def bits(self, value: int, count: int) -> None:
        for i in range(count):
            if self._used == 16:
                self._word_at, self._used = len(self._out), 0
                self._out += b"\0\0"
            self._out[self._word_at + self._used // 8] |= (value >> i & 1) << self._used % 8
            self._used += 1

    def lengths(self, lengths: list[int]) -> None:
        self.bits(len(lengths), 5)
        for length in lengths:
            self.bits(length, 4)

    def literal(self, data: bytes) -> None:
        self._out += data

    def file(self, size: int) -> bytes:
        return HEADER.pack(MAGIC, size, len(self._out), 0, 0, 0, 1) + bytes(self._out)


def packed(data: bytes) -> bytes:
    """All of it as it is."""
    packer, symbol = Packer(), len(data).bit_length()
    packer.lengths([0] * symbol + [1])
    packer.lengths([])
    packer.lengths([])
    packer.bits(1, 16)
    packer.bits(0, 1)
    packer.bits(len(data) - (1 << (symbol - 1)), symbol - 1)
    packer.literal(data)
    return packer.file(len(data))


def repeating() -> bytes:
    """``abc``, then 9 bytes from 3 back, ``xy``, then 2 bytes from 12 back."""
    packer = Packer()
    packer.lengths([2, 0, 1, 0, 2])  # codes 10, -, 0, -, 11
    packer.lengths([0, 0, 1, 0, 1])
    packer.lengths([1, 0, 0, 1])
    packer.bits(3, 16)
    packer.bits(0b0, 1)  # symbol 2: two bits, 2 or 3
    packer.bits(1, 1)
    packer.literal(b"abc")
    packer.bits(0b0, 1)  # back: symbol 2, 2 + 1
    packer.bits(0, 1)
    packer.bits(0b1, 1)  # length: symbol 3, 7 + 2
    packer.bits(3, 2)
    packer.bits(0b0, 1)
    packer.bits(0, 1)
    packer.literal(b"xy")
    packer.bits(0b1, 1)  # back: symbol 4, 11 + 1
    packer.bits(3, 3)
    packer.bits(0b0, 1)  # length: symbol 0, 0 + 2
    packer.bits(0b01, 2)  # nothing more: symbol 0, whose code is 10 from its first bit on
    return packer.file(16)


def test_what_lies_there_as_it_is_and_repetitions_of_what_was_just_written() -> None:
    assert unpacked(packed(bytes(range(256)) * 3)) == bytes(range(256)) * 3
    assert unpacked(repeating()) == b"abc" * 4 + b"xyca"


@pytest.mark.parametrize("cut", [0, 10, HEADER.size, HEADER.size + 5, len(repeating()) - 3])
def test_a_file_that_is_cut_is_refused(cut: int) -> None:
    with pytest.raises(ValueError, match=r"RNC|damaged"):
        unpacked(repeating()[:cut])


def test_a_repetition_from_before_the_beginning_is_refused() -> None:
    packer = Packer()
    packer.lengths([1, 1])  # codes 0, 1
    packer.lengths([1])
    packer.lengths([1])
    packer.bits(2, 16)
    packer.bits(0, 4)  # no bytes, 0 + 1 back, 0 + 2 of them, no bytes
    with pytest.raises(ValueError, match="damaged"):
        unpacked(packer.file(2))


def test_another_size_than_announced_is_refused() -> None:
    data = bytearray(packed(b"hello"))
    struct.pack_into(">I", data, 4, 6)
    with pytest.raises(ValueError, match="5 bytes"):
        unpacked(bytes(data))


def checksum(data: bytes) -> int:
    """CRC-16 with the polynomial A001, as in the header."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


@pytest.mark.skipif(not GAME.exists(), reason="beneath-a-steel-sky is not in the corpus folder")
def test_files_of_a_game_have_the_checksums_in_their_headers() -> None:
    index, disk = (GAME / "sky.dnr").read_bytes(), (GAME / "sky.dsk").read_bytes()
    checked = 0
    for i in range(4, len(index), 8 * 97):
        start, size = (int.from_bytes(index[i + a : i + a + 3], "little") for a in (2, 5))
        place = (start & 0x7FFFFF) << (4 if start >> 23 else 0)
        data = disk[place + GAME_HEADER : place + (size & 0x3FFFFF)]
        if int.from_bytes(index[i : i + 2], "little") >= SOUNDS and data.startswith(MAGIC):
            assert checksum(unpacked(data)) == HEADER.unpack_from(data)[3]
            checked += 1
    assert checked > 20
