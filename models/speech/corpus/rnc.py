"""Files packed by RNC ProPack, method 1, in which games of the 1990s keep their data.

After a header of 18 bytes come chunks, each with three tables of prefix codes: for how many bytes lie there as they
are, how far back a repetition begins, and how long it is. Bits are read from 16-bit little-endian words, the lowest
first; the bytes that lie there as they are begin behind the last word that was begun.
"""

from __future__ import annotations

import struct

MAGIC = b"RNC\x01"
HEADER = struct.Struct(">4sIIHHBB")  # magic, bytes unpacked, bytes packed, two checksums, leeway, chunks
SHORTEST = 2  # bytes of a repetition
#: What the next bits say: (symbol, bits of its code), ``None`` where no code begins so; and how many bits to look at.
Table = tuple[list[tuple[int, int] | None], int]


def unpacked(packed: bytes) -> bytes:
    """Raises ``ValueError`` where it is no such file, or one that is damaged."""
    magic, size, _, _, _, _, chunks = HEADER.unpack_from(packed) if len(packed) >= HEADER.size else (b"",) + (0,) * 6
    if magic != MAGIC:
        raise ValueError("does not begin with RNC, method 1")
    try:
        found = _chunks(_Bits(packed, HEADER.size), chunks)
    except (IndexError, TypeError) as error:  # behind the end, a code that is in no table
        raise ValueError("packed data are damaged") from error
    if len(found) != size:
        raise ValueError(f"packed data give {len(found)} bytes and not the {size} that they announce")
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
                    raise IndexError("a repetition from before the beginning")
                piece = out[start : start + count]
                while len(piece) < count:  # it repeats what it has just written
                    piece += piece[: count - len(piece)]
                out += piece
    return out


class _Bits:
    """Bits and bytes of ``data`` from ``place`` on."""

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data + b"\0\0", place
        self._word, self._left = 0, 0  # bits of words that were begun, and how many

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
            raise IndexError("bytes behind the end")
        return self._data[self._place - count : self._place]

    def table(self) -> Table:
        """Lengths of the symbols' codes; shorter codes come first, those of a length in the symbols' order."""
        lengths = [self.take(4) for _ in range(self.take(5))]
        width = max(lengths, default=0)
        table: list[tuple[int, int] | None] = [None] * (1 << width)
        code = 0
        for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length):
            first = int(f"{code >> (width - length):0{length}b}"[::-1], 2)  # its first bit is the lowest
            table[first :: 1 << length] = [(symbol, length)] * (1 << (width - length))
            code += 1 << (width - length)
        return table, width

    def value(self, table: Table) -> int:
        """Symbol 0 and 1 are themselves, ``n`` is a number of ``n`` bits whose others follow."""
        entries, width = table
        ahead = self._word
        if self._left < width:
            ahead |= self._next() << self._left
        symbol, length = entries[ahead & ((1 << width) - 1)]  # type: ignore[misc]
        self.take(length)
        return self.take(symbol - 1) | 1 << (symbol - 1) if symbol > 1 else symbol
