"""Texts for the recipe ``written``: spoken words with the punctuation after each and its case, by document.

Numbers, dates and abbreviations are put into words first, as a recogniser hears them. One document in ten is for
choosing, one in ten for the report; a document is a call, a block of dialogue, or (prompts) a sentence.
"""

from __future__ import annotations

import csv
import gzip
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.speech.corpus.spoken import speak
from models.speech.corpus.texts import MADE
from streamer.tasks.marks import CASES, ENDS, MARKS, coded

#: Of every source: file, and how often a word of it is drawn beside one of the others.
SOURCES = {
    "dialogue": ("text/dialogue.txt.gz", 0.45), "calls": ("text/earnings_calls.txt.gz", 1.0),
    "prompts": ("text/prompts.txt.gz", 4.0), "orders": ("text/orders.txt.gz", 1.0),
}  # fmt: skip
#: Sentences made by rule: commands, dates, names, numbers.
MADE_LINES, MADE_SHARE = 6000, 2.0
#: Lines of a document, where the source does not say where one ends.
BLOCK = 200
#: The first lines of a call say this.
WELCOME = re.compile(r"welcome to .*(call|results|conference)", re.IGNORECASE)
#: Calls are longer than that: a second welcome belongs to the same one.
CALL = 150
PARTS = ("train", "dev", "report")
TITLES = frozenset({"mister", "missus", "doctor", "professor"})
SHORT = {"mister": "mr", "missus": "mrs", "doctor": "dr"}
#: Sentences that are never trained on: those of the recordings with which recognisers are reported.
REPORTED = ("speech/commonvoice/utterances.csv", "speech/ljspeech/utterances.csv")


class Said(NamedTuple):
    """``mark``: a place in :data:`MARKS`; ``case``: in :data:`CASES`."""

    word: str
    mark: int
    case: int


Line = list[Said]


@dataclass
class Corpus:
    """Documents by part and source; a document is a list of lines."""

    parts: dict[str, dict[str, list[list[Line]]]] = field(default_factory=lambda: {part: {} for part in PARTS})


def labelled(text: str, rng: random.Random) -> Line | None:
    """A written text as its spoken words and what is to be written; ``None`` if these are unclear, or it was written
    without care: no capital at its start, or no mark at its end."""
    text = text.strip()
    if len(text) < 2 or not (text[0].isupper() or text[0].isdigit()) or text[-1] not in '.?!"':
        return None
    spoken = speak(text, rng)
    if spoken is None:
        return None
    tokens = spoken.split()
    line: Line = []
    for i, token in enumerate(tokens):
        word = token.strip(",.?!;:^-'\"")
        if not word:
            continue
        behind = token[len(token.rstrip(",.?!;:'\"-")) :].strip("'\"-")[:1]
        ahead = tokens[i + 1].lstrip("^'\"")[:1] if i + 1 < len(tokens) else "A"
        line.append(Said(word.lower(), _mark(behind, ahead), _case(token, word)))
    if not line or any(MARKS[a.mark] in ENDS and not b.case for a, b in pairwise(line)):
        return None
    if line[-1].mark == 0:  # speak() takes the mark from behind an abbreviation
        line[-1] = line[-1]._replace(mark=MARKS.index("?" if text[-1] == "?" else "."))
    line[0] = line[0]._replace(case=max(line[0].case, 1))
    for i, (one, after) in enumerate(pairwise(line)):
        if after.word == "m" and one.word in ("a", "p"):  # of a time
            line[i : i + 2] = [one._replace(case=0), after._replace(case=0)]
        elif one.word in TITLES and after.case:
            word = SHORT.get(one.word, one.word) if rng.random() < 0.3 else one.word
            line[i] = Said(word, 0, 1)
    return line


def _mark(behind: str, ahead: str) -> int:
    """``ahead``: the letter that the next word begins with. A colon before a capital ends a sentence."""
    match behind:
        case "?" | "," | ".":
            return MARKS.index(behind)
        case "!" | ";":
            return MARKS.index("." if behind == "!" or ahead.isupper() else ",")
        case ":":
            return MARKS.index("." if ahead.isupper() else ",")
    return 0


def _case(token: str, word: str) -> int:
    stem = word.removesuffix("'s")
    if len(stem) > 1 and stem.isupper():
        return CASES.index("upper")
    return CASES.index("capital" if word[:1].isupper() else "lower")


def _lines(path: Path) -> list[str]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.strip() for line in file]


def _documents(name: str, lines: Sequence[str]) -> Iterator[Sequence[str]]:
    if name == "prompts":  # they are in alphabetical order, and none knows the next one
        yield from ([line] for line in lines)
    elif name == "calls":
        begin = 0
        for i, line in enumerate(lines):
            if i - begin > CALL and WELCOME.search(line):
                yield lines[begin:i]
                begin = i
        yield lines[begin:]
    else:
        yield from (lines[i : i + BLOCK] for i in range(0, len(lines), BLOCK))


def part_of(document: Sequence[str]) -> str:
    """By its text: one in ten each for choosing and for the report."""
    return {0: "report", 1: "dev"}.get(zlib.crc32("\n".join(document).encode()) % 10, "train")


def reported(data: Path) -> dict[str, list[Line]]:
    """The recordings' own sentences that are written with care, by set."""
    rng = random.Random(3)
    found: dict[str, list[Line]] = {}
    for where in REPORTED:
        with (data / where).open(encoding="utf-8") as file:
            lines = [labelled(row["text"], rng) for row in csv.DictReader(file)]
        found[Path(where).parent.name] = [line for line in lines if line]
    return found


def load(data: Path) -> Corpus:
    rng = random.Random(3)
    never = {tuple(said.word for said in line) for lines in reported(data).values() for line in lines}
    corpus = Corpus()
    for name, (file, _) in SOURCES.items():
        for document in _documents(name, _lines(data / file)):
            lines = [line for text in document if (line := labelled(text, rng))]
            lines = [line for line in lines if tuple(said.word for said in line) not in never]
            if lines:
                corpus.parts[part_of(document)].setdefault(name, []).append(lines)
    words = [said.word for lines in corpus.parts["train"]["calls"] for line in lines[:40] for said in line[1:]
             if said.case == 1 and len(said.word) > 2]  # fmt: skip
    names = sorted({word.capitalize() for word in words})
    makes, shares = zip(*MADE, strict=True)
    made = (rng.choices(makes, shares)[0](rng, names) for _ in range(MADE_LINES))
    texts = (labelled(text[0].upper() + text[1:], rng) for text in made)
    corpus.parts["train"]["made"] = [[line] for line in texts if line]
    return corpus


# -- rows --------------------------------------------------------------------------------------------------------------

#: A pause instead of a word; and the label of an unknown mark or case.
PAUSE, UNKNOWN = 0, -100


@dataclass(frozen=True)
class TextRows:
    """``words`` [n]: a place in the vocabulary, :data:`PAUSE` or a word; ``marks`` and ``cases`` [n]; ``starts``: rows
    at which a line begins."""

    words: NDArray[np.int32]
    marks: NDArray[np.int64]
    cases: NDArray[np.int64]
    starts: NDArray[np.int64]


class Vocabulary:
    """Only so that words are kept as numbers here: the model sees the letters alone."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {"": PAUSE}

    def __getitem__(self, word: str) -> int:
        return self.places.setdefault(word, len(self.places))

    def codes(self) -> NDArray[np.int32]:
        """[words, WIDTH]."""
        return coded(list(self.places))


@dataclass(frozen=True)
class TextNoise:
    """What a recogniser and its speaker do: ``pause`` after a sentence, ``breath`` after a comma and ``stop`` after any
    word; words that are lost, others that come in, and wrong ones, each as a share of all."""

    pause: float = 0.6
    breath: float = 0.08
    stop: float = 0.015
    lost: float = 0.015
    more: float = 0.01
    wrong: float = 0.03


QUIET = TextNoise(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def rows(documents: Sequence[Sequence[Line]], vocabulary: Vocabulary) -> list[tuple[NDArray[np.int64], int]]:
    """Of each line words, marks and cases [n, 3]; and whether it begins a document."""
    found = []
    for document in documents:
        for number, line in enumerate(document):
            each = np.array([(vocabulary[said.word], said.mark, said.case) for said in line], np.int64)
            found.append((each, int(number == 0)))
    return found


def streamed(lines: Sequence[NDArray[np.int64]], noise: TextNoise, ahead: int, rng: np.random.Generator) -> TextRows:
    """Lines one behind the other, with pauses and errors. A pause is ``ahead`` rows, and up to three more: what fills
    the last chunk."""
    table = np.concatenate(lines)
    first = np.zeros(len(table), bool)
    first[np.cumsum([0, *(len(line) for line in lines[:-1])])] = True
    last = np.roll(first, -1)
    if noise.wrong:  # another word: the punctuation after it stays, its case is unknown
        wrong = rng.random(len(table)) < noise.wrong
        table[wrong, 0] = table[rng.integers(0, len(table), int(wrong.sum())), 0]
        table[wrong & (table[:, 2] > 0) & ~first, 2] = UNKNOWN
    kept = rng.random(len(table)) >= noise.lost * ~(first | last)
    table, first, last = table[kept], first[kept], last[kept]
    if noise.more:
        places = np.flatnonzero(rng.random(len(table)) < noise.more)
        extra = np.stack([table[rng.integers(0, len(table), len(places)), 0], np.zeros(len(places)),
                          np.full(len(places), UNKNOWN)], 1).astype(np.int64)  # fmt: skip
        table, first, last = (np.insert(a, places, b, axis=0) for a, b in ((table, extra), (first, 0), (last, 0)))
    # each stretch of some lines has habits of its own
    habit = rng.uniform(0, 2, len(table) // 400 + 1)[np.arange(len(table)) // 400] if noise.stop else 1.0
    share = np.where(table[:, 1] > 1, np.minimum(1, noise.pause * habit), np.where(
        table[:, 1] == 1, noise.breath * habit, noise.stop * habit))  # fmt: skip
    pauses = rng.random(len(table)) < share
    pauses[-1] = True
    count = np.where(pauses, rng.integers(ahead, ahead + 4, len(table)), 0)
    at = np.arange(len(table)) + np.cumsum(count) - count
    whole = np.zeros((len(table) + int(count.sum()), 3), np.int64)
    whole[:, 1:] = UNKNOWN
    whole[at] = table
    return TextRows(whole[:, 0].astype(np.int32), whole[:, 1], whole[:, 2], at[first])
