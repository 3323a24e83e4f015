"""Reads SQLite's files page by page, without SQLite: the rows of a damaged file, and the readable part of its log.

SQLite refuses a whole file for one bad page, and silently drops the rest of a write-ahead log after its first bad
frame. Here every page is read by itself. Formats: https://sqlite.org/fileformat2.html and walformat.html.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Log", "PageRow", "PageSet", "log_of", "promised_frames"]

PAGE_SIZE = 4096
LOG_HEADER, FRAME_HEADER = 32, 24
INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF = 2, 10, 13
#: Bytes of integers by their serial type.
INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


class PageRow(NamedTuple):
    """A row of a table: its number, its readable columns, and the number of columns that it had."""

    rowid: int
    values: tuple[Any, ...]
    width: int


class Log(NamedTuple):
    """A write-ahead log. ``pages``: for every frame of a finished transaction the page's number, and its offset in the
    file. ``readable``: the number of frames that SQLite accepts, up to the first bad one. ``headless``: the log's head
    is damaged, so that SQLite accepts none."""

    page_size: int
    pages: list[tuple[int, int]]
    readable: int
    headless: bool


def log_of(path: Path) -> Log | None:
    """The log at ``path``; ``None``: there is none, or it is empty. Raises :class:`OSError`."""
    try:
        data = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    if not len(data):
        return None
    raw = data.tobytes()
    order, stated, salts, seed = _head(raw[:LOG_HEADER])
    size = stated or PAGE_SIZE
    step = FRAME_HEADER + size
    count = max(0, (len(data) - LOG_HEADER) // step)
    frames = data[LOG_HEADER : LOG_HEADER + count * step].reshape(count, step)
    heads = [struct.unpack_from(">6I", raw, LOG_HEADER + i * step) for i in range(count)]
    if seed is None and heads:
        salts = Counter(head[2:4] for head in heads[:3]).most_common(1)[0][0]
    pages, committed = list[tuple[int, int]](), 0
    for number, (page, commit, *rest) in enumerate(heads):
        if tuple(rest[:2]) == salts:  # else the frame is from the log's previous use, or damaged
            pages.append((page, LOG_HEADER + number * step + FRAME_HEADER))
            committed = len(pages) if commit else committed
    readable = 0
    if seed is not None and count:
        sums = _Checksums(np.concatenate([frames[:, :8], frames[:, FRAME_HEADER:]], axis=1), order)
        for number, head in enumerate(heads):
            seed = sums.of(number, seed)
            if head[2:4] != salts or head[4:] != seed:
                break
            readable = number + 1 if head[1] else readable
    return Log(size, pages[:committed], readable, seed is None)


def promised_frames(log: Path) -> int:
    """How many finished frames of the log are not in the database, as their writer recorded it in the index beside the
    log (``-shm``). The index survives a killed process, but not a power cut."""
    index = _read(log.with_name(log.name.removesuffix("-wal") + "-shm"))[:136]
    head = _read(log)[:LOG_HEADER]
    if len(index) < 136 or index[:48] != index[48:96] or index[12] != 1:
        return 0
    sums = _Checksums(np.frombuffer(index[:40], np.uint8).reshape(1, -1), "=")
    frames, moved = struct.unpack_from("=I", index, 16)[0], struct.unpack_from("=I", index, 96)[0]
    if sums.of(0, (0, 0)) != struct.unpack_from("=2I", index, 40) or moved >= frames:
        return 0
    _, _, salts, seed = _head(head)
    return 0 if seed is not None and salts != struct.unpack(">2I", index[32:40]) else int(frames)


def _head(data: bytes) -> tuple[str, int, tuple[int, ...], tuple[int, int] | None]:
    """From a log's head: byte order of the checksums, size of a page, salts, and the checksum so far; ``None`` if the
    head is damaged."""
    if len(data) < LOG_HEADER:
        return "<", 0, (), None
    magic, _, size, _, *rest = struct.unpack(">8I", data)
    order = ">" if magic & 1 else "<"
    found = _Checksums(np.frombuffer(data[: LOG_HEADER - 8], np.uint8).reshape(1, -1), order).of(0, (0, 0))
    if magic & ~1 != 0x377F0682 or found != tuple(rest[2:]) or not _is_page_size(size):
        return order, 0, (), None
    return order, size, tuple(rest[:2]), found


def _is_page_size(size: int) -> bool:
    return 512 <= size <= 65536 and size & (size - 1) == 0


@lru_cache(maxsize=4)
def _powers(count: int) -> NDArray[np.uint32]:
    """[count + 1, 2, 2]: powers of the matrix that updates the checksum for each pair of words, modulo 2**32."""
    found = [(1, 0, 0, 1)]
    for _ in range(count):
        a, b, c, d = found[-1]
        found.append(((a + c) % 2**32, (b + d) % 2**32, (a + 2 * c) % 2**32, (b + 2 * d) % 2**32))
    return np.array(found, np.uint32).reshape(-1, 2, 2)


class _Checksums:
    """Checksums of ``rows`` uint8 [N, 8 * pairs]: each continues from that of the row before. A checksum is two coupled
    sums of 32 bits, computed as a product with powers of a matrix, which is fast for megabytes."""

    def __init__(self, rows: NDArray[np.uint8], order: str) -> None:
        words = np.ascontiguousarray(rows).view(np.dtype(f"{order}u4")).astype(np.uint32)
        pairs = words.shape[1] // 2
        powers = _powers(pairs)
        first, second = words[:, 0::2], words[:, 0::2] + words[:, 1::2]
        behind = powers[pairs - 1 :: -1] if pairs else powers[:0]
        self._own = [
            (first * behind[:, i, 0] + second * behind[:, i, 1]).sum(axis=1, dtype=np.uint32).tolist() for i in (0, 1)
        ]
        self._power = powers[pairs].tolist()

    def of(self, number: int, seed: tuple[int, int]) -> tuple[int, int]:
        (a, b), (c, d) = self._power
        found = (a * seed[0] + b * seed[1] + self._own[0][number], c * seed[0] + d * seed[1] + self._own[1][number])
        return found[0] % 2**32, found[1] % 2**32


class PageSet:
    """The newest image of every page of a database and its log. Every field is validated, and inconsistent pages are
    skipped. Pages of the free list are left out, since they hold deleted rows."""

    def __init__(self, path: Path) -> None:
        self._data = _read(path)
        log = path.with_name(path.name + "-wal")
        found = log_of(log)
        self._log = _read(log) if found is not None else b""
        stated = int.from_bytes(self._data[16:18], "big")
        stated = 65536 if stated == 1 else stated
        in_log = found.page_size if found is not None and not found.headless else 0
        self._size = in_log or (stated if _is_page_size(stated) else PAGE_SIZE)
        logged = found.pages if found is not None and found.page_size == self._size else []
        most = -(-len(self._data) // self._size) + len(logged)  # a page is in one of them
        self._logged = {number: at for number, at in logged if number <= most}
        self._count = most

    def rows(self) -> Iterator[PageRow]:
        """The rows of all tables, in no order."""
        yield from (row for page, kind in self._leaves() if kind == TABLE_LEAF for row in self._cells(page, kind))

    def entries(self) -> Iterator[tuple[Any, ...]]:
        """The entries of all indexes: the indexed values, then the row's number."""
        for page, kind in self._leaves():
            if kind != TABLE_LEAF:
                yield from (row.values for row in self._cells(page, kind))

    def unreadable(self) -> int:
        """Pages without a valid head: their rows can't even be counted."""
        free, kinds = self._free(), {b"\0", b"\2", b"\5", b"\n", b"\r"}
        return sum(n not in free and self._page(n)[:1] not in kinds for n in range(2, self._count + 1))

    def _page(self, number: int) -> bytes:
        """The bytes of a page, empty if the file does not have it; the last page of a truncated file may be short."""
        if number in self._logged:
            at = self._logged[number]
            return self._log[at : at + self._size]
        return self._data[(number - 1) * self._size : number * self._size] if number > 0 else b""

    def _leaves(self) -> Iterator[tuple[bytes, int]]:
        free = self._free()
        for number in range(2, self._count + 1):  # the first one is the schema's
            page = self._page(number)
            if number not in free and page and page[0] in (INDEX_INTERIOR, INDEX_LEAF, TABLE_LEAF):
                yield page.ljust(self._size, b"\0"), page[0]

    def _free(self) -> set[int]:
        found = set[int]()
        trunk = int.from_bytes(self._page(1)[32:36], "big")
        while 1 < trunk <= self._count and trunk not in found:
            found.add(trunk)
            page = self._page(trunk)
            if len(page) < self._size:
                break
            count = min(int.from_bytes(page[4:8], "big"), self._size // 4 - 2)
            leaves = struct.unpack_from(f">{count}I", page, 8)
            found.update(leaves)
            trunk = int.from_bytes(page[:4], "big")
        return found

    def _cells(self, page: bytes, kind: int) -> Iterator[PageRow]:
        count = int.from_bytes(page[3:5], "big")
        first = 12 if kind == INDEX_INTERIOR else 8
        for number in range(min(count, (self._size - first) // 2)):
            at = int.from_bytes(page[first + 2 * number : first + 2 * number + 2], "big")
            try:
                yield self._cell(page, at + (4 if kind == INDEX_INTERIOR else 0), kind)
            except (IndexError, ValueError, struct.error):
                continue

    def _cell(self, page: bytes, at: int, kind: int) -> PageRow:
        length, at = _varint(page, at)
        rowid = 0
        if kind == TABLE_LEAF:
            rowid, at = _varint(page, at)
            rowid -= (rowid >> 63) << 64
        return PageRow(rowid, *_values(self._payload(page, at, length, kind)))

    def _payload(self, page: bytes, at: int, length: int, kind: int) -> bytes:
        """The readable part of the payload."""
        size = self._size
        most = size - 35 if kind == TABLE_LEAF else (size - 12) * 64 // 255 - 23
        if length <= most:
            return page[at : at + length]
        least = (size - 12) * 32 // 255 - 23
        here = least + (length - least) % (size - 4)
        here = here if here <= most else least
        parts, left = [page[at : at + here]], length - here
        following = int.from_bytes(page[at + here : at + here + 4], "big")
        while left > 0 and following and len(parts) <= self._count:
            image = self._page(following)
            parts.append(image[4 : 4 + left])
            left -= len(parts[-1])
            following = int.from_bytes(image[:4], "big") if len(image) == size else 0
        return b"".join(parts)


def _read(path: Path) -> bytes:
    """The bytes; zeros for parts that the disk can't read."""
    try:
        with path.open("rb") as file:
            try:
                return file.read()
            except OSError:
                parts, size = list[bytes](), path.stat().st_size
                for at in range(0, size, PAGE_SIZE):
                    try:
                        file.seek(at)
                        parts.append(file.read(PAGE_SIZE))
                    except OSError:
                        parts.append(bytes(min(PAGE_SIZE, size - at)))
                return b"".join(parts)
    except FileNotFoundError:
        return b""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = data[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | data[at + 8], at + 9


def _values(payload: bytes) -> tuple[tuple[Any, ...], int]:
    """The values of a record, up to the first incomplete one, and the number that it had."""
    end, at = _varint(payload, 0)
    place, found, kinds = end, list[Any](), list[int]()
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    for kind in kinds:
        size = INTEGERS.get(kind, 8 if kind == 7 else max(0, (kind - 12) // 2))
        raw = payload[place : place + size]
        if len(raw) < size:
            break
        place += size
        if kind >= 12:
            found.append(raw if kind % 2 == 0 else raw.decode("utf-8"))
        elif kind == 7:
            found.append(struct.unpack(">d", raw)[0])
        elif kind in INTEGERS:
            found.append(int.from_bytes(raw, "big", signed=True))
        else:
            found.append({0: None, 8: 0, 9: 1}.get(kind))
    return tuple(found), len(kinds)
