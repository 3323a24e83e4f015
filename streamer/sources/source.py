"""Bytes of a file or a pipe by position, and a file object over them for libsndfile."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

__all__ = ["KEPT", "Source", "View"]

#: Bytes at the start of a pipe that are kept, since headers are read twice.
KEPT = 2 * 2**20
#: Most recent bytes of a pipe that are kept, since a FLAC decoder seeks back.
RECENT = 2**18
PIECE = 2**16
#: Length reported for a pipe, which has none.
ENDLESS = 2**40


class Source:
    """Positioned reads from ``fd``: a file, a pipe or a terminal; :meth:`close` closes it if it is ``owned``. ``size``:
    bytes from the initial position, ``None`` if unknown. Reads raise ``OSError``.
    """

    def __init__(self, fd: int, owned: bool = True) -> None:
        self._fd, self._owned = fd, owned
        regular = stat.S_ISREG(os.fstat(fd).st_mode)
        self._base = os.lseek(fd, 0, os.SEEK_CUR) if regular else 0
        self.size = max(0, os.fstat(fd).st_size - self._base) if regular else None
        self._first = bytearray()
        self._recent = bytearray()
        self._at = 0  # bytes read from the pipe

    @property
    def position(self) -> int:
        """Bytes read from a pipe so far."""
        return self._at

    def at(self, position: int, count: int) -> bytes:
        """``count`` bytes from ``position``; fewer at the end, and for positions that a pipe no longer keeps or has not
        reached yet."""
        if self.size is not None:
            return self._pread(position, count)
        while self._at < position + count and (position <= self._at or position + count <= KEPT) and self._fetch():
            pass
        if position + count <= len(self._first) or self._at == len(self._first):
            return bytes(self._first[position : position + count])
        start = self._at - len(self._recent)
        if position >= start:
            return bytes(self._recent[position - start : position - start + count])
        kept = bytes(self._first[position : position + count])
        return kept + self.at(position + len(kept), count - len(kept)) if kept else b""

    def some(self, position: int) -> bytes:
        """The bytes available from ``position`` on, at most 64 KB, without waiting for more; empty at the end."""
        if self.size is not None:
            return self._pread(position, PIECE)
        if position == self._at and not self._fetch():
            return b""
        return self.at(position, min(PIECE, self._at - position))

    def pieces(self, position: int) -> Iterator[bytes]:
        """The bytes from ``position`` to the end, as they come."""
        while piece := self.some(position):
            position += len(piece)
            yield piece

    def close(self) -> None:
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def _pread(self, position: int, count: int) -> bytes:
        parts = []
        while count > 0 and (part := os.pread(self._fd, count, self._base + position)):
            parts.append(part)
            position += len(part)
            count -= len(part)
        return b"".join(parts)

    def _fetch(self) -> bool:
        data = os.read(self._fd, PIECE)
        if len(self._first) < KEPT:
            self._first += data
        self._recent += data
        self._at += len(data)
        if len(self._recent) > 2 * RECENT:
            del self._recent[: len(self._recent) - RECENT]
        return bool(data)


class View:
    """A file for libsndfile: ``head``, then ``length`` bytes of ``source`` from ``start`` on (``None``: to the end).
    ``goes_on`` is called once at the end of ``length``: whether the rest belongs to the samples, too.
    """

    def __init__(
        self,
        source: Source,
        head: bytes = b"",
        start: int = 0,
        length: int | None = None,
        goes_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self._source, self._head, self._start, self._length, self._goes_on = source, head, start, length, goes_on
        self._position = 0
        size = source.size
        known = length if length is not None else None if size is None else max(0, size - start)
        self._size = ENDLESS if known is None or size is None else len(head) + known

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = min(max(0, base + offset), 2**62)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, count: int) -> bytes:
        data = self._head[self._position : self._position + count]
        if (left := count - len(data)) > 0:
            data += self._body(max(0, self._position - len(self._head)), left)
        self._position += len(data)
        return data

    def _body(self, position: int, count: int) -> bytes:
        if self._length is not None and position + count > self._length:
            if position <= self._length and self._goes_on():
                self._length = None
            else:
                count = max(0, self._length - position)
        return self._source.at(self._start + position, count) if count else b""
