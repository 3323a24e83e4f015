"""Recognises formats by their first bytes: sound in a container, a picture, a text. Raw PCM matches none of them.

Sources: RFC 3533 (Ogg), RFC 9639 (FLAC), RFC 8794 (EBML), ISO/IEC 14496-12 (``ftyp``), ISO/IEC 11172-3 (MP3), 13818-7
(ADTS), EBU Tech 3306 (RF64), and the magic numbers of the others.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from dataclasses import dataclass

__all__ = ["HEAD", "Container", "container", "id3_length", "written"]

#: Number of bytes at the start of a file that are examined.
HEAD = 4096
#: Minimum length of a text in bytes; sound may look like a shorter text by chance.
TEXT = 64
#: Minimum number of different characters in a text; a repeated sample has fewer.
LETTERS = 12

_PRINTABLE = frozenset(range(0x20, 0x7F)) | {9, 10, 13}
#: MPEG audio layer III, kbit/s by the index in its header; version 1, then 2 and 2.5.
_RATES = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}


@dataclass(frozen=True)
class Container:
    """``name``: the common name. ``way``: its decoder, libsndfile (``library``) or ``ffmpeg``; empty: not sound."""

    name: str
    way: str = ""


_WAV, _MP3, _AIFF = Container("WAV", "library"), Container("MP3", "library"), Container("AIFF", "library")
_MAGIC: tuple[tuple[bytes, Container], ...] = (
    (b"RF64", Container("RF64", "library")),
    (b"BW64", Container("RF64", "library")),
    (b"riff\x2e\x91\xcf\x11", Container("W64", "library")),
    (b"fLaC", Container("FLAC", "library")),
    (b"OggS", Container("Ogg", "library")),
    (b".snd", Container("AU", "library")),
    (b"caff", Container("CAF", "library")),
    (b"NIST_1A", Container("NIST Sphere", "library")),
    (b"Creative Voice File", Container("VOC", "library")),
    (b"\x1aE\xdf\xa3", Container("WebM or Matroska", "ffmpeg")),
    (b"#!AMR", Container("AMR", "ffmpeg")),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Container("WMA", "ffmpeg")),
    (b"FLV\x01", Container("FLV", "ffmpeg")),
    (b"\x89PNG\r\n", Container("a PNG picture")),
    (b"\xff\xd8\xff\xe0", Container("a JPEG picture")),
    (b"\xff\xd8\xff\xe1", Container("a JPEG picture")),
    (b"GIF8", Container("a GIF picture")),
    (b"%PDF-", Container("a PDF document")),
    (b"PK\x03\x04", Container("a zip archive")),
    (b"\x1f\x8b\x08", Container("gzip, compressed")),
    (b"7z\xbc\xaf", Container("a 7z archive")),
    (b"\x7fELF", Container("a program")),
    (b"SQLite format 3", Container("an SQLite database")),
)


def container(head: bytes) -> Container | None:
    """The format that begins with ``head``, the first :data:`HEAD` bytes or fewer; ``None`` if unknown."""
    if head[:4] in (b"RIFF", b"RIFX"):
        form = {b"WAVE": _WAV, b"AVI ": Container("AVI", "ffmpeg"), b"WEBP": Container("a WebP picture")}
        return form.get(head[8:12], _WAV if len(head) < 12 else Container("a RIFF file but not a WAV"))
    if head[:4] == b"FORM" and (len(head) < 12 or head[8:12] in (b"AIFF", b"AIFC")):
        return _AIFF
    if head[4:8] == b"ftyp":
        return Container("MP4 or M4A", "ffmpeg")
    for magic, found in _MAGIC:
        if head.startswith(magic):
            return found
    if (length := id3_length(head)) > 0:
        return container(head[length:]) or _MP3
    return _frames(head) or _text(head)


def id3_length(head: bytes) -> int:
    """Length in bytes of the ID3v2 tag at the start of ``head``; 0: no tag."""
    if head[:3] != b"ID3" or len(head) < 10 or head[3] not in (2, 3, 4) or max(head[6:10]) > 127:
        return 0
    size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
    return 10 + size + (10 if head[5] & 0x10 else 0)


def mp3_frame(head: bytes) -> tuple[int, int]:
    """Length in bytes and number of samples of the layer III frame at the start of ``head``; (0, 0): no frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return 0, 0
    version, index, hz = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or index in (0, 15) or hz == 3:
        return 0, 0
    first = version == 3
    size = (144 if first else 72) * 1000 * _RATES[0 if first else 1][index] // _HZ[version][hz] + (head[2] >> 1 & 1)
    return size, 1152 if first else 576


def _adts_frame(head: bytes) -> int:
    """Length in bytes of the ADTS frame at the start of ``head``; 0: no frame."""
    if len(head) < 7 or head[0] != 0xFF or head[1] & 0xF6 != 0xF0 or head[2] >> 2 & 15 > 12:
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _frames(head: bytes) -> Container | None:
    """MP3 or AAC, if ``head`` begins with two frames: the header of a single frame may also be two samples."""
    size, _ = mp3_frame(head)
    if size and mp3_frame(head[size:])[0] and head[1] == head[size + 1]:
        return _MP3
    size = _adts_frame(head)
    if size > 7 and _adts_frame(head[size:]) > 7 and head[1:3] == head[size + 1 : size + 3]:
        return Container("AAC", "ffmpeg")
    return None


def _text(head: bytes) -> Container | None:
    """HTML, XML, JSON or plain text in ASCII."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:16].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return Container("an HTML page" if b"html" in head[:200].lower() else "an XML document")
    if len(head) < TEXT or len(set(head[:512])) < LETTERS or not _PRINTABLE.issuperset(head[:512]):
        return None
    return Container("JSON" if start[:1] in (b"{", b"[") else "a text")


def written(head: bytes) -> Container | None:
    """The kind of text that begins with ``head``, however short, in UTF-8; ``None``: no text. Only for what is known to
    be no sound: raw PCM may look like a short text by chance."""
    try:
        text = getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    if not text or not all(letter.isprintable() or letter.isspace() for letter in text):
        return None
    return Container("JSON" if text.lstrip()[:1] in ("{", "[") else "a text")
