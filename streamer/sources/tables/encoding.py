"""Bytes to lines of text as they come: UTF-8, UTF-16, cp1252, with any line ends; other files are named."""

from __future__ import annotations

import codecs
import io
import zlib
from collections import deque
from typing import IO, Any, cast

__all__ = ["LINE_BYTES", "Lines", "TooLongError", "no_text"]

LINE_BYTES = 2**20
BLOCK = 2**16
#: Magic numbers of binary files with tables, and the advice for each.
CONTAINERS = (
    (b"PK\x03\x04", "is a zip archive or a spreadsheet (xlsx, ods): unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet (xls): save the sheet as CSV"),
    (b"PAR1", "is Parquet: write it as CSV (pandas.read_parquet(FILE).to_csv(...))"),
    (b"ARROW1", "is Arrow: write it as CSV"),
    (b"SQLite format 3", "is an SQLite database: sqlite3 -header -csv FILE 'select ...' writes CSV"),
    (b"%PDF", "is a PDF: tables are read from CSV and JSON"),
    (b"\x89HDF", "is HDF5: write it as CSV"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd: zstd -dc FILE | streamer forecast -"),
    (b"BZh", "is compressed with bzip2: bzip2 -dc FILE | streamer forecast -"),
    (b"\xfd7zXZ", "is compressed with xz: xz -dc FILE | streamer forecast -"),
    (b"RIFF", "is sound (WAV), no table"),
    (b"fLaC", "is sound (FLAC), no table"),
    (b"OggS", "is sound (Ogg), no table"),
)


class TooLongError(ValueError):
    """A line is longer than the limit and left out."""


def no_text(head: bytes) -> str:
    """Name of a binary file's format, and the advice for it; empty if it may be text."""
    return next((advice for magic, advice in CONTAINERS if head.startswith(magic)), "")


def _cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("cp1252", "replace"), error.end


codecs.register_error("streamer.cp1252", _cp1252)


class Lines:
    """Lines of ``file`` without their line ends, one at a time; from a pipe only what is available is read. ``number``:
    of the last line, from 1. ``encoding``: ``UTF-8`` or ``UTF-16``. ``foreign``: number of lines with bytes that are
    not UTF-8, which are read as cp1252; ``first_foreign``: number and text of the first. ``trouble``: the read error
    after the last line, if reading stopped before the end of the input.

    A line ends at LF, CR LF or CR. No more than ``most`` bytes of a line are kept."""

    def __init__(self, file: IO[bytes], most: int = LINE_BYTES) -> None:
        self._file, self.most = file, most
        self.number = self.foreign = 0
        self.first_foreign: tuple[int, str] | None = None
        self.encoding = "UTF-8"
        self._decoder: Any = None
        self._ready: deque[tuple[int, str | None]] = deque()  # None: too long
        self._back: deque[tuple[int, str]] = deque()
        self._rest = b""
        self._after_cr = self._skipping = self._ended = self._begun = False
        self._read = 0  # lines that were split off
        self.head = b""
        self.trouble = ""

    def begin(self) -> bytes:
        """Read the first bytes and detect the encoding."""
        if not self._begun:
            self._begun = True
            head = self._block()
            while len(head) < 2 and (more := self._block()):
                head += more
            self.head = head
            self._feed(self._start(head))
        return self.head

    @property
    def waiting(self) -> bool:
        """Whether a line is available without reading further."""
        return bool(self._ready or self._back)

    def next(self) -> str | None:
        """The next line, ``None`` at the end. Raises :class:`TooLongError`."""
        if self._back:
            self.number, text = self._back.popleft()
            return text
        self.begin()
        while not self._ready and not self._ended:
            block = self._block()
            if self._decoder is not None:
                block = self._decoder.decode(block, final=not block).encode("utf-8", "replace")
            self._feed(block)
        if not self._ready:
            return None
        self.number, found = self._ready.popleft()
        if found is None:
            raise TooLongError(f"is longer than {self.most} bytes")
        return found

    def back(self, lines: list[tuple[int, str]]) -> None:
        """Put lines back; they come again before all others."""
        self._back.extendleft(reversed(lines))

    def _block(self) -> bytes:
        try:
            block: bytes = cast(io.BufferedReader, self._file).read1(BLOCK)
        except (OSError, EOFError, zlib.error) as error:  # of gzip: cut off, or damaged
            block, self.trouble = b"", str(error)
        self._ended = not block
        return block

    def _start(self, head: bytes) -> bytes:
        if head.startswith(codecs.BOM_UTF8):
            return head[3:]
        wide = _wide(head)
        if not wide:
            return head
        self.encoding = "UTF-16"
        self._decoder = codecs.getincrementaldecoder(wide)("replace")
        text: str = self._decoder.decode(head)
        return text.removeprefix("\ufeff").encode("utf-8", "replace")

    def _feed(self, block: bytes) -> None:
        if self._after_cr and block[:1] == b"\n":
            block = block[1:]
        if block:
            self._after_cr = block[-1:] == b"\r"
        if not block and not self._ended:
            return
        pieces = (self._rest + block).splitlines(keepends=True)
        self._rest = b""
        if pieces and not self._ended and pieces[-1][-1:] not in (b"\n", b"\r"):
            self._rest = pieces.pop()
        for piece in pieces:
            if self._skipping:  # the end of a line that was too long
                self._skipping = False
                continue
            self._read += 1
            if len(piece) > self.most:
                self._ready.append((self._read, None))
            else:
                self._ready.append((self._read, self._text(piece.rstrip(b"\r\n"))))
        if len(self._rest) > self.most:
            self._rest = b""
            if not self._skipping:
                self._skipping = True
                self._read += 1
                self._ready.append((self._read, None))

    def _text(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "streamer.cp1252")
        self.foreign += 1
        if self.first_foreign is None:
            self.first_foreign = (self._read, text)
        return text


def _wide(head: bytes) -> str:
    """The codec for UTF-16, detected by a byte order mark or by its zeros; empty if the text is not UTF-16."""
    if head.startswith(codecs.BOM_UTF16_LE):
        return "utf-16-le"
    if head.startswith(codecs.BOM_UTF16_BE):
        return "utf-16-be"
    even, odd = head[0:1000:2], head[1:1000:2]
    if odd and odd.count(0) > 0.6 * len(odd) and even.count(0) < 0.1 * len(even) + 1e-9 and even[:1] != b"\0":
        return "utf-16-le"
    if even and even.count(0) > 0.6 * len(even) and odd.count(0) < 0.1 * len(odd) + 1e-9:
        return "utf-16-be"
    return ""
