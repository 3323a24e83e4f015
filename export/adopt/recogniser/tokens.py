"""Reads ``tokens.txt`` as k2, NeMo, WeNet and T-one write it: a symbol and its number on every line.

The result are tokens for the task ``transcribe``: ``▁`` at the beginning of a new word, and ``<0xNN>`` for a byte of
UTF-8, in whatever form the list has bytes.
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

#: Byte-level BPE writes every byte as one printable character (fairseq's and icefall's byte_utils): ASCII as it is, the
#: others from U+0100 on, leaving out those that Unicode's normalisation (NFKC) takes apart.
_LETTERS = [
    chr(c) for c in range(0x100, 0x1A7) if c not in (0x132, 0x133, 0x13F, 0x140, 0x149, 0x17F)
]  # fmt: skip
_PLAIN = range(0x20, 0x7F)
_BYTES = dict(zip(_LETTERS, (byte for byte in range(256) if byte not in _PLAIN), strict=True))
_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Tokens:
    """``texts``: by number. ``units``: what the task calls them. ``unknown``: a token that stands for no text."""

    texts: tuple[str, ...]
    blank: int
    units: str
    unknown: int | None


def read_tokens(path: Path, size: int, *, last: bool = False) -> Tokens:
    """``size``: tokens that the model scores. ``last``: without a blank by name it is the last one (NeMo).

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
        # a list whose token is a space has lost it, or has one left
        text, index = match[1] or " ", int(match[2])
        if index in found:
            raise AdoptionError(f"{path}, line {number}: {index} is {found[index]!r} already")
        found[index] = text
    if sorted(found) == list(range(size - 1)) and last:
        found[size - 1] = BLANKS[0]
    if sorted(found) != list(range(size)):
        raise AdoptionError(
            f"{path} has {len(found)} tokens, up to number {max(found, default=0)}, the model scores {size}: it is the "
            "list of another model"
        )
    texts = [found[index] for index in range(size)]
    blank = next((texts.index(name) for name in BLANKS if name in texts), size - 1 if last else None)
    if blank is None:
        raise AdoptionError(f"{path} has no blank, which is called {', '.join(BLANKS)}: is it a model of CTC?")
    unknown = next((texts.index(name) for name in UNKNOWN if name in texts), None)
    if _of_bytes(texts):
        texts = [text if index == blank or _special(text) else _as_bytes(text) for index, text in enumerate(texts)]
    else:
        texts = [_FALLBACK.sub(lambda byte: byte[0].replace(byte[1], byte[1].upper()), text) for text in texts]
    return Tokens(tuple(_unlike(texts)), blank, _units(texts), unknown)


def _special(text: str) -> bool:
    return re.fullmatch(r"<[^<>]+>", text) is not None


def _of_bytes(texts: list[str]) -> bool:
    """Every character is one of the 256 that stand for bytes, and some of them for no ASCII."""
    used = {letter for text in texts if not _special(text) for letter in text.replace(WORD, "")} - {"⁇"}
    return bool(used & _BYTES.keys()) and all(letter in _BYTES or ord(letter) in _PLAIN for letter in used)


def _as_bytes(text: str) -> str:
    return "".join(f"<0x{_BYTES[letter]:02X}>" if letter in _BYTES else letter for letter in text)


def _units(texts: list[str]) -> str:
    if any(text.startswith(WORD) or _FALLBACK.fullmatch(text) for text in texts):
        return "pieces"
    return "characters" if {" ", "|"} & set(texts) else "pieces"


def _unlike(texts: list[str]) -> list[str]:
    """Where a list has a token twice a number is added to its name."""
    seen: set[str] = set()
    out = []
    for index, text in enumerate(texts):
        out.append(f"<{index}>" if text in seen else text)
        seen.add(text)
    return out
