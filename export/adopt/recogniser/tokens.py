"""Reads ``tokens.txt`` as k2, NeMo, WeNet and T-one write it: a symbol and its number on every line.

The result is a list of tokens for the task ``transcribe``: ``▁`` begins a new word, and ``<0xNN>`` is a byte of UTF-8,
whatever form bytes have in the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from export.adopt.report import AdoptionError

__all__ = ["Tokens", "read_tokens"]

BLANKS = ("<blk>", "<eps>", "<blank>")
UNKNOWN = ("<unk>", "<UNK>")
WORD = "▁"

#: Byte-level BPE writes every byte as one printable character (fairseq's and icefall's byte_utils): printable ASCII as
#: itself, other bytes from U+0100 on, without the characters that Unicode's normalisation (NFKC) decomposes.
_LETTERS = [
    chr(c) for c in range(0x100, 0x1A7) if c not in (0x132, 0x133, 0x13F, 0x140, 0x149, 0x17F)
]  # fmt: skip
_PLAIN = range(0x20, 0x7F)
_BYTES = dict(zip(_LETTERS, (byte for byte in range(256) if byte not in _PLAIN), strict=True))
_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Tokens:
    """``texts``: by number. ``blank``: its number. ``units``: the task's option. ``unknown``: the number of a token
    without a text, if there is one."""

    texts: tuple[str, ...]
    blank: int
    units: str
    unknown: int | None


def read_tokens(path: Path, size: int, *, last: bool = False) -> Tokens:
    """Read a list of tokens. ``size``: number of tokens that the model scores. ``last``: if no token is a blank by
    name, the last one is (NeMo).

    Raises :class:`AdoptionError` for a list that does not fit.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise AdoptionError(f"can't read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise AdoptionError(f"{path} is not UTF-8: {error}") from error
    found: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"(?:(.*?)[ \t]+)?(\d+)[ \t]*", line)
        if match is None:
            raise AdoptionError(f"{path}, line {number}: {line[:40]!r} is not a token with its number behind it")
        # the line of a token that is a space may have lost it
        text, index = match[1] or " ", int(match[2])
        if index in found:
            raise AdoptionError(f"{path}, line {number}: {index} is {found[index]!r} already")
        found[index] = text
    if sorted(found) == list(range(size - 1)) and last:
        found[size - 1] = BLANKS[0]
    if sorted(found) != list(range(size)):
        raise AdoptionError(
            f"{path} has {len(found)} tokens, up to number {max(found, default=0)}, the model scores {size}: the list "
            "belongs to another model"
        )
    texts = [found[index] for index in range(size)]
    blank = next((texts.index(name) for name in BLANKS if name in texts), size - 1 if last else None)
    if blank is None:
        raise AdoptionError(f"{path} has no blank, which is called {', '.join(BLANKS)}: is it a model of CTC?")
    unknown = next((texts.index(name) for name in UNKNOWN if name in texts), None)
    if _is_byte_level(texts):
        texts = [text if index == blank or _special(text) else _as_bytes(text) for index, text in enumerate(texts)]
    else:
        texts = [_FALLBACK.sub(lambda byte: byte[0].replace(byte[1], byte[1].upper()), text) for text in texts]
    return Tokens(tuple(_unique(texts)), blank, _units(texts), unknown)


def _special(text: str) -> bool:
    """Whether a token is in angle brackets."""
    return re.fullmatch(r"<[^<>]+>", text) is not None


def _is_byte_level(texts: list[str]) -> bool:
    """Whether every character is one of the 256 for bytes, and some are for bytes that are not printable ASCII."""
    used = {letter for text in texts if not _special(text) for letter in text.replace(WORD, "")} - {"⁇"}
    return bool(used & _BYTES.keys()) and all(letter in _BYTES or ord(letter) in _PLAIN for letter in used)


def _as_bytes(text: str) -> str:
    """A byte-level token with its bytes as ``<0xNN>``."""
    return "".join(f"<0x{_BYTES[letter]:02X}>" if letter in _BYTES else letter for letter in text)


def _units(texts: list[str]) -> str:
    if any(text.startswith(WORD) or _FALLBACK.fullmatch(text) for text in texts):
        return "pieces"
    return "characters" if {" ", "|"} & set(texts) else "pieces"


def _unique(texts: list[str]) -> list[str]:
    """The tokens, where a repeated one is replaced by its number in angle brackets."""
    seen: set[str] = set()
    out = []
    for index, text in enumerate(texts):
        out.append(f"<{index}>" if text in seen else text)
        seen.add(text)
    return out
