"""MP3 and Ogg files read through a pipe: from a file libsndfile stops at its estimate of the length.

Sources: RFC 3533 (Ogg pages), the Xing and LAME tags of MP3 files (delay and padding of the encoder).
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from streamer.containers import id3_length, mp3_frame
from streamer.sources import SourceError
from streamer.sources.source import Source

__all__ = ["Piped", "mp3", "ogg"]

#: Delay of an MP3 decoder in samples, besides the encoder's delay.
DECODER = 529
PAGE = 27
PIECE = 1152
BEGINS, ENDS = 2, 4


class Piped:
    """libsndfile reading from a pipe. ``skip``: samples to leave out; ``frames``: number of samples, 0 if unknown.

    A separate thread writes ``pieces`` into the pipe; it ends with :meth:`close`. Raises ``sf.LibsndfileError``.
    """

    def __init__(self, pieces: Iterator[bytes], skip: int = 0, frames: int = 0) -> None:
        self._read, write = os.pipe()
        self._error: Exception | None = None
        threading.Thread(target=self._feed, args=(pieces, write), name="pipe", daemon=True).start()
        try:
            self._file = sf.SoundFile(self._read, closefd=False)
        except BaseException:
            os.close(self._read)
            raise
        self.samplerate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.subtype: str = self._file.subtype
        self.frames, self._skip = frames, skip
        self._left = frames or 2**62

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> NDArray[np.float32]:
        """As ``soundfile``'s. Raises the ``OSError`` or :class:`SourceError` of the iterator ``pieces``."""
        while self._skip and len(lost := self._file.read(min(self._skip, frames), dtype=dtype, always_2d=True)):
            self._skip -= len(lost)
        parts: list[NDArray[np.float32]] = []
        wanted = min(frames, self._left)
        try:  # in small pieces: a piece that fails is lost as a whole
            while wanted > 0 and len(part := self._file.read(min(wanted, PIECE), dtype=dtype, always_2d=always_2d)):
                parts.append(part)
                wanted -= len(part)
        except sf.LibsndfileError as error:
            self._error = self._error or error
        got = sum(map(len, parts))
        self._left -= got
        if not got and self._error is not None:
            raise self._error
        return np.concatenate(parts) if parts else np.zeros((0, self.channels), np.float32)

    def close(self) -> None:
        if self._read >= 0:
            self._file.close()
            os.close(self._read)
            self._read = -1

    def _feed(self, pieces: Iterator[bytes], write: int) -> None:
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(write, rest) :]
        except BrokenPipeError:
            pass  # closed before the end
        except Exception as error:  # raised again by read()
            self._error = error
        finally:
            os.close(write)


def mp3(source: Source, start: int = 0) -> Piped:
    """An MP3 without its tags: a frame of tags (Xing, Info, VBRI) announces a length, which is often that of another
    file."""
    while (tag := id3_length(source.at(start, 10))) > 0:
        start += tag
    head = source.at(start, 4096)
    size, samples = mp3_frame(head)
    skip = frames = 0
    tag_at = max(head.find(b"Xing", 0, 64), head.find(b"Info", 0, 64))
    if size and tag_at > 0 and len(head) > tag_at + 144:
        lame = head[tag_at + 120 : tag_at + 144]
        if lame[:4] in (b"LAME", b"Lavc", b"Lavf", b"GOGO"):
            skip = (lame[21] << 4 | lame[22] >> 4) + DECODER
            frames = _announced(source, start + size, head[tag_at:], samples, skip, (lame[22] & 15) << 8 | lame[23])
        start += size
    elif size and head[36:40] == b"VBRI":
        start += size
    return Piped(source.pieces(start), skip, frames)


def _announced(source: Source, start: int, tag: bytes, samples: int, skip: int, padding: int) -> int:
    """Number of samples without padding, if the tag matches this file; else 0."""
    has_frames, has_bytes = tag[7] & 1, tag[7] & 2
    count = int.from_bytes(tag[8:12], "big")
    length = int.from_bytes(tag[12:16] if has_frames else tag[8:12], "big")
    if not (has_frames and has_bytes and count) or source.size is None:
        return 0
    tail = 128 if source.at(source.size - 128, 3) == b"TAG" else 0
    there = source.size - start - tail
    if not 0 <= length - there <= 4096 and abs(length - there) > 4096:
        return 0  # cut, or several files in one
    return max(0, count * samples - (skip - DECODER) - padding)


class Links:
    """The links of a chained Ogg file, one after another: concatenated files, or an internet radio's songs."""

    def __init__(self, source: Source, start: int = 0) -> None:
        self._source, self._at = source, start
        self.more = True  # another link follows
        self.missing = 0  # bytes that the last page lacks

    def pages(self) -> Iterator[bytes]:
        """The whole pages of the next link."""
        self.more = False
        inside = False
        while (head := self._source.at(self._at, PAGE)) and head[:4] == b"OggS" and len(head) == PAGE:
            if head[5] & BEGINS and inside:
                self.more = True
                return
            inside = inside or not head[5] & BEGINS
            table = self._source.at(self._at + PAGE, head[26])
            size = PAGE + head[26] + sum(table)
            page = self._source.at(self._at, size)
            self.missing = size - len(page) if len(table) == head[26] else PAGE
            self._at += len(page)
            yield page
        if 0 < len(head) < PAGE:
            self.missing = PAGE - len(head)


def ogg(source: Source, start: int, changed: Callable[[int], None]) -> OggChain:
    return OggChain(Links(source, start), changed)


class OggChain:
    """All links of an Ogg file as one decoder. ``changed``: called with the sample rate of a link whose rate
    differs."""

    frames = 0

    def __init__(self, links: Links, changed: Callable[[int], None]) -> None:
        self._links, self._changed = links, changed
        self._part = Piped(links.pages())
        self.samplerate, self.channels, self.subtype = self._part.samplerate, self._part.channels, self._part.subtype

    def read(self, frames: int, dtype: str = "float32", always_2d: bool = True) -> NDArray[np.float32]:
        """As ``soundfile``'s. Raises :class:`SourceError` after the last sample of a truncated file."""
        while not len(block := self._part.read(frames, dtype, always_2d)):
            if self._links.missing:
                raise SourceError(f"is truncated: at least {self._links.missing} bytes are missing")
            if not self._links.more:
                return block
            self._part.close()
            self._part = Piped(self._links.pages())
            if self._part.samplerate != self.samplerate:
                self._changed(self._part.samplerate)
        return block

    def close(self) -> None:
        with contextlib.suppress(sf.LibsndfileError):
            self._part.close()
