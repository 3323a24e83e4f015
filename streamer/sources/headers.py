"""Where the samples of a file begin and end. Length fields are often wrong: a writer into a pipe can't know the length,
and a recorder that was killed did not correct it. So the length is taken from the actual bytes.

Sources: EBU Tech 3306 (RIFF, RF64, W64), RFC 9639 (FLAC), Apple's AIFF and CAF specifications, Sun's AU.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamer.sources import SourceError
from streamer.sources.source import ENDLESS, Source, View

__all__ = ["Opened", "opened"]

#: Lengths this close to 2^31 or 2^32 are placeholders: 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, less a header.
NEAR = 2**16
CHUNKS = 10_000
#: If one of these chunks follows a data chunk of length 0, there really are no samples.
EMPTY = frozenset({b"LIST", b"id3 ", b"ID3 ", b"cue ", b"bext", b"JUNK", b"junk", b"fact", b"PEAK", b"smpl", b"_PMX"})
#: Formats that libsndfile reads from RF64, which allows lengths beyond 4 GB.
PLAIN = frozenset({1, 3, 6, 7})
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


@dataclass
class Opened:
    """``view``: the file for libsndfile. ``missing``: announced bytes that the file lacks. ``end``: position at which a
    pipe's announced samples end, ``None`` if unknown. ``note``: a note for the user."""

    view: View
    missing: int = 0
    end: int | None = None
    note: str = ""


def opened(kind: str, source: Source, start: int = 0) -> Opened:
    """Open a container of the given ``kind`` that begins at ``start``. Raises :class:`SourceError`, without the file's
    name."""
    if kind in ("WAV", "RF64"):
        return _wav(source, start)
    if kind == "FLAC":
        return _flac(source, start)
    view = View(source, start=start)
    if kind == "CAF":
        return _caf(source, start)
    if kind == "AU":
        offset, length = struct.unpack(">II", source.at(start + 4, 8).ljust(8, b"\0"))
        return _bounded(view, source, start + offset, None if _unknown(length) else length)
    if kind == "AIFF":
        return _bounded(view, source, *_chunk(source, start + 12, b"SSND", ">4sI"))
    if kind == "W64":
        return _w64(source, start)
    return Opened(view)


def _unknown(length: int) -> bool:
    return length == 0 or any(abs(length - power) <= NEAR for power in (2**31, 2**32)) or length >= 2**62


def _bounded(view: View, source: Source, start: int, length: int | None) -> Opened:
    if length is None or length == 0:
        return Opened(view)
    if source.size is None:
        return Opened(view, end=start + length)
    return Opened(view, missing=max(0, start + length - source.size))


# -- WAV ---------------------------------------------------------------------------------------------------------------


def _wav(source: Source, start: int) -> Opened:
    """A view with a new header, since libsndfile trusts the file's own length fields, or guesses."""
    order = ">" if source.at(start, 4) == b"RIFX" else "<"
    form, announced, at = b"", 0, start + 12
    wide = None
    for _ in range(CHUNKS):
        chunk = source.at(at, 8)
        if len(chunk) < 8:
            raise SourceError("is cut off in its header: no samples follow")
        kind, length = struct.unpack(f"{order}4sI", chunk)
        if kind == b"data":
            announced = length
            break
        if kind == b"ds64":
            wide = struct.unpack("<8xQ", source.at(at + 8, 16).ljust(16, b"\0"))[0]
        if kind == b"fmt ":
            form = source.at(at + 8, min(length, 4096))
        at += 8 + length + length % 2
    else:
        raise SourceError("has no samples among its first chunks")
    if len(form) < 16:
        raise SourceError("has no format (the chunk 'fmt ') before its samples")
    return _samples(source, at + 8, wide if wide is not None and announced == 2**32 - 1 else announced, form, order)


def _samples(source: Source, start: int, announced: int, form: bytes, order: str) -> Opened:
    length: int | None = announced
    note, missing, end = "", 0, None
    unknown = _unknown(announced)
    code, channels, rate, _, frame = struct.unpack(f"{order}HHIIH", form[:14])
    if source.size is not None:
        there = max(0, source.size - start)
        if unknown:
            length = 0 if announced == 0 and source.at(start, 4) in EMPTY else there
        elif announced > there:
            missing, length = announced - there, there
        elif source.at(start + announced + announced % 2, 4) in (b"RIFF", b"RF64"):
            note = "another WAV follows its end and is left out: give each WAV as a file of its own"
        elif there - announced > 8 and not _goes_on_as_chunk(source, start + announced, announced, order):
            length, more = there, (there - announced) / max(1, frame * rate)
            note = f"{more:.2f} s follow the end that its header gives: they are read, too"
        if frame and length and length % frame and not missing and code in PLAIN:
            note = note or f"its last {length % frame} bytes are no whole sample, and are left out"
    elif unknown:
        length = 0 if announced == 0 and source.at(start, 4) in EMPTY else None
    else:
        end = start + announced

    def goes_on() -> bool:
        at = start + announced
        return len(source.at(at, 8)) == 8 and not _goes_on_as_chunk(source, at, announced, order)

    blocks = code not in PLAIN and code != 0xFFFE  # of these codecs libsndfile decodes silence behind the end
    if blocks and length is None:
        raise SourceError(
            f"is WAV of the codec {code:#x}, which needs a length, and its header has none: give it as a file"
        )
    given = 2**62 if length is None or (source.size is None and not blocks) else length
    asked = goes_on if source.size is None else lambda: False
    view = View(source, _header(form, code, given, channels, order), start, length, asked)
    return Opened(view, missing, end, note)


def _header(form: bytes, code: int, length: int, channels: int, order: str) -> bytes:
    """A WAV header, RF64 for formats that libsndfile reads from it; ``length`` of the samples in bytes."""
    head = struct.pack(f"{order}4sI", b"fmt ", len(form)) + form + bytes(len(form) % 2)
    if order == "<" and (code in PLAIN or code == 0xFFFE):
        wide = struct.pack("<4sIQQQI", b"ds64", 28, length + 80 + len(head), length, length // max(1, channels), 0)
        return b"RF64\xff\xff\xff\xffWAVE" + wide + head + b"data\xff\xff\xff\xff"
    short = min(length, 2**32 - 1 - NEAR)
    riff = b"RIFF" if order == "<" else b"RIFX"
    return (
        struct.pack(f"{order}4sI4s", riff, min(2**32 - 1, short + 4 + len(head) + 8), b"WAVE")
        + head
        + struct.pack(f"{order}4sI", b"data", short)
    )


def _goes_on_as_chunk(source: Source, at: int, length: int, order: str) -> bool:
    """Whether a chunk follows contents of ``length``, with or without a padding byte."""
    return _is_chunk(source, at, order) or (length % 2 == 1 and _is_chunk(source, at + 1, order))


def _is_chunk(source: Source, at: int, order: str) -> bool:
    """Whether a chunk or a tag begins there, rather than more samples."""
    head = source.at(at, 8)
    if head.startswith((b"TAG", b"ID3", b"APETAGEX")):
        return True
    if len(head) < 8 or not head[:4].isascii() or not head[:4].decode().isprintable():
        return False
    return source.size is None or at + 8 + int(struct.unpack(f"{order}I", head[4:])[0]) <= source.size + 1


# -- the others --------------------------------------------------------------------------------------------------------


def _flac(source: Source, start: int) -> Opened:
    """FLAC: the number of samples is 0 where the writer did not know it; libsndfile would then fail at the end."""
    head = bytearray(source.at(start, 42))
    if len(head) == 42 and not (head[21] & 15 or any(head[22:26])):
        head[21] |= 15
        head[22:26] = b"\xff" * 4
        return Opened(View(source, bytes(head), start + 42))
    return Opened(View(source, start=start))


def _chunk(source: Source, at: int, wanted: bytes, layout: str) -> tuple[int, int | None]:
    """The position of a chunk's contents, and their length if it is known."""
    size = struct.calcsize(layout)
    for _ in range(CHUNKS):
        head = source.at(at, size)
        if len(head) < size:
            break
        kind, length = struct.unpack(layout, head)
        if kind == wanted:
            return at + size, None if _unknown(length) else length
        at += size + length + length % 2
    return at, None


def _caf(source: Source, start: int) -> Opened:
    """CAF: a length of -1 means up to the end; libsndfile refuses it."""
    at = start + 8
    for _ in range(CHUNKS):
        head = source.at(at, 12)
        if len(head) < 12:
            break
        kind, length = struct.unpack(">4sq", head)
        if kind == b"data":
            if length > 0:
                return _bounded(View(source, start=start), source, at + 12, length)
            rest = ENDLESS // 2 if source.size is None else max(0, source.size - at - 12)
            whole = source.at(start, at + 4 - start) + struct.pack(">q", rest)
            return Opened(View(source, whole, at + 12))
        at += 12 + max(0, length)
    return Opened(View(source, start=start))


def _w64(source: Source, start: int) -> Opened:
    at = start + 40
    for _ in range(CHUNKS):
        head = source.at(at, 24)
        if len(head) < 24:
            break
        length = struct.unpack("<Q", head[16:])[0]
        if head[:16] == _W64_DATA:
            if not _unknown(length) and length >= 24:
                return _bounded(View(source, start=start), source, at + 24, length - 24)
            rest = ENDLESS // 2 if source.size is None else max(0, source.size - at - 24)
            whole = source.at(start, at + 16 - start) + struct.pack("<Q", rest + 24)
            return Opened(View(source, whole, at + 24))
        at += max(24, length + -length % 8)
    return Opened(View(source, start=start))
