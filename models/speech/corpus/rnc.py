"""Unpacks files of RNC ProPack, method 1, a format of games of the 1990s.

A header of 18 bytes is followed by chunks, each with three tables of prefix codes: for the number of literal bytes, the
distance of a match, and its length. Bits are read from 16-bit little-endian words, the lowest first; literal bytes
start after the last word that was read.
"""

from __future__ import annotations

import struct

MAGIC = b"RNC\x01"
HEADER = struct.Struct(">4sIIHHBB")  # magic, bytes unpacked, bytes packed, two checksums, leeway, chunks
SHORTEST = 2  # bytes of a match
#: (symbol, bits of its code) by the next bits, ``None`` if no code starts so; and the number of bits to look at.
Table = tuple[list[tuple[int, int] | None], int]


def unpacked(packed: bytes) -> bytes:
    """The unpacked bytes. Raises ``ValueError`` if the file is damaged, or of another format."""
    magic, size, _, _, _, _, chunks = HEADER.unpack_from(packed) if len(packed) >= HEADER.size else (b"",) + (0,) * 6
    if magic != MAGIC:
        raise ValueError("does not begin with RNC, method 1")
    try:
        found = _chunks(_Bits(packed, HEADER.size), chunks)
    except (IndexError, TypeError) as error:  # beyond the end, or an unknown code
        raise ValueError("packed data are damaged") from error
    if len(found) != size:
        raise ValueError(f"packed data give {len(found)} bytes, the header says {size}")
    return bytes(found)


def _chunks(bits: _Bits, chunks: int) -> bytearray:
    out = bytearray()
    bits.take(2)
    for _ in range(chunks):
        raw, back, length = bits.table(), bits.table(), bits.table()
        for left in reversed(range(bits.take(16))):
            out += bits.bytes(bits.value(raw))
            if left:
                start = len(out) - bits.value(back) - 1
                count = bits.value(length) + SHORTEST
                if start < 0:
                    raise IndexError("a match before the beginning")
                piece = out[start : start + count]
                while len(piece) < count:  # the match overlaps its own output
                    piece += piece[: count - len(piece)]
                out += piece
    return out


class _Bits:
    """A reader of bits and bytes of ``data``, from ``place`` on."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data + b"\0\0", place
        self._word, self._left = 0, 0  # unread bits of the last words, and their number

    def _next(self) -> int:
        return self._data[self._place] | self._data[self._place + 1] << 8

    def take(self, count: int) -> int:
        if self._left < count:
            self._word |= self._next() << self._left
            self._place += 2
            self._left += 16
        value = self._word & ((1 << count) - 1)
        self._word >>= count
        self._left -= count
        return value

    def bytes(self, count: int) -> bytes:
        self._place += count
        if self._place > len(self._data):
            raise IndexError("bytes beyond the end")
        return self._data[self._place - count : self._place]

    def table(self) -> Table:
        """Read a table: the lengths of the symbols' codes. Shorter codes come first, equal lengths in the symbols'
        order."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        width = max(lengths, default=0)
        table: list[tuple[int, int] | None] = [None] * (1 << width)
        code = 0
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
            first = int(f"{code >> (width - length):0{length}b}"[::-1], 2)  # the first bit is the lowest
            table[first :: 1 << length] = [(symbol, length)] * (1 << (width - length))
            code += 1 << (width - length)
        return table, width

    def value(self, table: Table) -> int:
        """Read a number: symbols 0 and 1 are the number; symbol ``n`` is a number of ``n`` bits, of which the lower
        ``n - 1`` follow."""
        entries, width = table
        ahead = self._word
        if self._left < width:
            ahead |= self._next() << self._left
        symbol, length = entries[ahead & ((1 << width) - 1)]  # type: ignore[misc]
        self.take(length)
        return self.take(symbol - 1) | 1 << (symbol - 1) if symbol > 1 else symbol
