"""Word pieces to words: SentencePiece's marks, bytes of UTF-8, and scripts that have no spaces.

A piece that begins with ``▁`` begins a word. So does a character of a script without spaces between words (Chinese,
Japanese), and the piece after it; such words are joined without a space. ``<0xNN>`` is one byte; several make one
character. Any other token in angle brackets (``<unk>``) has no text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

__all__ = ["sentence", "spelt", "words"]

MARK = "▁"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SILENT = re.compile(r"<(?!0x[0-9A-F]{2}>)[^<>\s]+>")
#: Kana, ideographs and their punctuation, which are written without spaces.
_DENSE = re.compile("[\u2e80-\u303f\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uff65]")


def words(texts: Sequence[str], stable: int) -> tuple[list[slice], int]:
    """The slice of pieces of each word, and how many words will not change if the first ``stable`` pieces don't."""
    starts = [
        index
        for index, text in enumerate(texts)
        if index == 0 or text.startswith(MARK) or _DENSE.match(text) or _DENSE.match(texts[index - 1][-1:])
    ]
    cuts = [slice(begin, end) for begin, end in itertools.pairwise([*starts, len(texts)])]
    # a word is complete when the next one has begun; a character of a script without spaces at once
    ended = (cut.stop < stable or (cut.stop == stable and _DENSE.match(texts[cut.stop - 1][-1:])) for cut in cuts)
    return cuts, sum(1 for end in ended if end)


def spelt(texts: Sequence[str]) -> str:
    """A word's pieces as text. Invalid UTF-8 becomes U+FFFD."""
    whole = "".join(text for text in texts if not _SILENT.fullmatch(text)).replace(MARK, "")
    if not _BYTE.search(whole):
        return whole
    parts = _BYTE.split(whole)  # text, byte, text, byte, ..., text
    data = b"".join(bytes([int(part, 16)]) if n % 2 else part.encode() for n, part in enumerate(parts))
    return data.decode("utf-8", "replace").strip()


def sentence(found: Sequence[str]) -> str:
    """Words joined with spaces, except between words of a script without spaces."""
    text = ""
    for word in found:
        dense = not text or _DENSE.match(text[-1]) or _DENSE.match(word)
        text += word if dense else f" {word}"
    return text
