# ruff: noqa: RUF001
"""Pronunciations: hibari's grapheme-to-phoneme rules write Kokoro's alphabet; labels are ARPAbet without stress."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from models.speech.corpus.spoken import words

#: Kokoro's alphabet (misaki's) in ARPAbet, the longest symbols first.
SYMBOLS = {
    "ɜɹ": "ER", "əɹ": "ER", "ɜː": "ER", "iː": "IY", "uː": "UW", "ɔː": "AO", "ɑː": "AA", "ɪə": "IH R", "ɛː": "EH R",
    "ʤ": "JH", "ʧ": "CH", "A": "EY", "I": "AY", "W": "AW", "Y": "OY", "O": "OW", "Q": "OW", "ə": "AH", "ᵊ": "AH",
    "i": "IY", "u": "UW", "ɑ": "AA", "ɔ": "AO", "ɛ": "EH", "ɜ": "ER", "ɪ": "IH", "ʊ": "UH", "ʌ": "AH", "æ": "AE",
    "a": "AE", "ɐ": "AH", "ɒ": "AA", "ᵻ": "IH", "b": "B", "d": "D", "f": "F", "h": "HH", "j": "Y", "k": "K", "l": "L",
    "m": "M", "n": "N", "p": "P", "s": "S", "t": "T", "v": "V", "w": "W", "z": "Z", "ɡ": "G", "ŋ": "NG", "ɹ": "R",
    "ʃ": "SH", "ʒ": "ZH", "ð": "DH", "θ": "TH", "T": "T", "ɾ": "T", "ʔ": "T", "x": "K",
}  # fmt: skip
_SYMBOL = re.compile("|".join(sorted(SYMBOLS, key=len, reverse=True)))
#: Names of letters, American; a British one says "zed".
_SPOKEN = "ˈA bˈi sˈi dˈi ˈi ˈɛf ʤˈi ˈAʧ ˈI ʤˈA kˈA ˈɛl ˈɛm ˈɛn ˈO pˈi kjˈu ˈɑɹ ˈɛs tˈi jˈu vˈi dˈʌbəljˌu ˈɛks wˈI zˈi"
LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", _SPOKEN.split(), strict=True))


def arpabet(phonemes: str) -> list[str]:
    """Phones in ARPAbet: ``ɹˈid`` -> ``["R", "IY", "D"]``; marks of stress and length are left out."""
    return " ".join(SYMBOLS[symbol] for symbol in _SYMBOL.findall(phonemes)).split()


def timed(phonemes: str, starts: Sequence[float], end: float) -> list[tuple[float, float]]:
    """Start and end, in seconds, of each of :func:`arpabet`'s phones of a word. ``starts``: of its symbols; ``end``: of
    the word. A stress mark belongs to the phone after it."""
    spans: list[tuple[float, float]] = []
    found = list(_SYMBOL.finditer(phonemes))
    begin = starts[0] if len(starts) else end
    for i, match in enumerate(found):
        stop = end
        if found[i + 1 :]:
            following = found[i + 1]
            between = phonemes[match.end() : following.start()]
            marks = len(between) - len(between.rstrip("ˈˌ"))  # stress marks, which precede the vowel
            stop = starts[following.start() - marks]
        count = len(SYMBOLS[match[0]].split())
        edges = [begin + (stop - begin) * part / count for part in range(count + 1)]
        spans += pairwise(edges)
        begin = stop
    return spans


def fitted(count: int, spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The times of the ``count`` phones of a word's label, from those of its spoken phones: the same if the numbers are
    equal, else equal parts of the word."""
    if count == len(spans) or not spans:
        return list(spans)
    start, end = spans[0][0], spans[-1][1]
    edges = [start + (end - start) * i / count for i in range(count + 1)]
    return list(pairwise(edges))


def closest(spoken: Sequence[str], known: Sequence[list[str]]) -> list[str]:
    """The pronunciation among ``known`` with the fewest edits to the ``spoken`` one; ``spoken`` if none is known."""
    from models.training.score import edits

    return min(known, key=lambda phones: edits(spoken, phones)) if known else list(spoken)


class Pronounce:
    """``(text) -> phonemes``, for texts from :func:`.spoken.speak`. Needs hibari's package on the path."""

    def __init__(self, british: bool = False) -> None:
        from hibari.g2p import G2P

        self.british = british
        self._g2p = G2P(british=british)

    def groups(self, text: str) -> list[tuple[str, str]]:
        """(word with its marks, its phonemes) for every word. Raises ``ValueError`` if the rules split the text into
        other words."""
        pieces = text.split()
        tokens = self._g2p.tokenize(" ".join(piece.replace("^", "") for piece in pieces))
        groups: list[list[Any]] = [[]]
        for token in tokens:
            groups[-1].append(token)
            if token.whitespace:
                groups.append([])
        groups = [group for group in groups if group]
        if len(groups) != len(pieces):
            raise ValueError(f"{text!r}: {len(groups)} words to the tokenizer")
        for piece, group in zip(pieces, groups, strict=True):
            if piece.startswith("^"):
                letter = "zˈɛd" if self.british and piece[1] == "Z" else LETTERS[piece[1]]
                group[0].phonemes, group[0].rating = letter, 4
        spoken = self._g2p.phonemize_tokens([token for group in groups for token in group])
        said, ends = [""], 0
        for token in spoken:
            said[-1] += token.phonemes or ""
            if token.whitespace:
                said.append("")
                ends += 1
        if len(said) != len(pieces):
            raise ValueError(f"{text!r}: {len(said)} words spoken")
        return list(zip(pieces, said, strict=True))

    def __call__(self, text: str) -> str:
        return " ".join(phonemes for _, phonemes in self.groups(text))


def label(text: str, american: Pronounce) -> tuple[list[str], list[list[str]]]:
    """Words and their phones: CMUdict's pronunciation that is closest to that of the rules in this sentence; that of
    the rules for words that CMUdict lacks. Labels are American for all speakers, as is the lexicon. Raises
    ``ValueError`` for an unspeakable word."""
    from models.speech.data import pronounce

    said, phones = [], []
    for piece, phonemes in american.groups(text):
        found, spoken = words(piece), arpabet(phonemes)
        if len(found) != 1 or not spoken:
            raise ValueError(f"{text!r}: {piece!r} is not a word that can be spoken")
        said.append(found[0])
        phones.append(spoken if piece.startswith("^") else closest(spoken, pronounce(found[0])))
    return said, phones
