"""Texts for the recipe ``written``: spoken words, each with its case and the punctuation after it, by document.

Numbers, dates and abbreviations are first written as words, as a recogniser outputs them. One document in ten is for
development, one in ten for the report; a document is a call, a block of dialogue, or (prompts) a sentence.
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

#: File of each source, and how often its documents are repeated.
SOURCES = {
    "dialogue": ("text/dialogue.txt.gz", 0.45), "calls": ("text/earnings_calls.txt.gz", 1.0),
    "prompts": ("text/prompts.txt.gz", 4.0), "orders": ("text/orders.txt.gz", 1.0),
}  # fmt: skip
#: Number of generated sentences (commands, dates, names, numbers), and how often they are repeated.
MADE_LINES, MADE_SHARE = 6000, 2.0
#: Lines of a document, if the source does not mark documents.
BLOCK = 200
#: Matches the first lines of a call.
WELCOME = re.compile(r"welcome to .*(call|results|conference)", re.IGNORECASE)
#: The fewest lines of a call; a second welcome within them belongs to the same call.
CALL = 150
PARTS = ("train", "dev", "report")
TITLES = frozenset({"mister", "missus", "doctor", "professor"})
SHORT = {"mister": "mr", "missus": "mrs", "doctor": "dr"}
#: Sentences that are held out: those of the recordings with which recognisers are reported.
REPORTED = ("speech/commonvoice/utterances.csv", "speech/ljspeech/utterances.csv")


class Said(NamedTuple):
    """A spoken word. ``mark``: index in :data:`MARKS` of the mark after it; ``case``: index in :data:`CASES`."""

    word: str
    mark: int
    case: int


Line = list[Said]


@dataclass
class Corpus:
    """Documents by part and source; a document is a list of lines."""

    parts: dict[str, dict[str, list[list[Line]]]] = field(default_factory=lambda: {part: {} for part in PARTS})


def labelled(text: str, rng: random.Random) -> Line | None:
    """The spoken words of a written text, with marks and cases. ``None`` if they are unclear, or the text is careless:
    no capital at its start, or no mark at its end."""
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
    if line[-1].mark == 0:  # speak() drops the mark after an abbreviation
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
    """The index in :data:`MARKS`. ``behind``: the character after the word; ``ahead``: the first letter of the next. A
    colon before a capital ends a sentence."""
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
    if name == "prompts":  # unrelated sentences in alphabetical order
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
    """The part of a document, by a hash of its text: one in ten each for development and for the report."""
    return {0: "report", 1: "dev"}.get(zlib.crc32("\n".join(document).encode()) % 10, "train")


def reported(data: Path) -> dict[str, list[Line]]:
    """The sentences of the held-out recordings, by set, without careless ones."""
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

#: The index of a pause, and the label of an unknown mark or case.
PAUSE, UNKNOWN = 0, -100


@dataclass(frozen=True)
class TextRows:
    """``words`` [n]: indices in the vocabulary, or :data:`PAUSE`; ``marks`` and ``cases`` [n]; ``starts``: rows where
    lines begin."""

    words: NDArray[np.int32]
    marks: NDArray[np.int64]
    cases: NDArray[np.int64]
    starts: NDArray[np.int64]


class Vocabulary:
    """Numbers of words, for compact texts; the model itself sees only letters."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {"": PAUSE}

    def __getitem__(self, word: str) -> int:
        return self.places.setdefault(word, len(self.places))

    def codes(self) -> NDArray[np.int32]:
        """The letter codes of all words [words, WIDTH]."""
        return coded(list(self.places))


@dataclass(frozen=True)
class TextNoise:
    """Probabilities of pauses and errors: ``pause`` after a sentence, ``breath`` after a comma, ``stop`` after another
    word; shares of words that are ``lost``, inserted (``more``) or ``wrong``."""

    pause: float = 0.6
    breath: float = 0.08
    stop: float = 0.015
    lost: float = 0.015
    more: float = 0.01
    wrong: float = 0.03


QUIET = TextNoise(1.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def rows(documents: Sequence[Sequence[Line]], vocabulary: Vocabulary) -> list[tuple[NDArray[np.int64], int]]:
    """For each line: words, marks and cases [n, 3], and 1 if it begins a document."""
    found = []
    for document in documents:
        for number, line in enumerate(document):
            each = np.array([(vocabulary[said.word], said.mark, said.case) for said in line], np.int64)
            found.append((each, int(number == 0)))
    return found


def streamed(lines: Sequence[NDArray[np.int64]], noise: TextNoise, ahead: int, rng: np.random.Generator) -> TextRows:
    """The lines as one stream, with pauses and errors. A pause has ``ahead`` to ``ahead + 3`` rows, as in a daemon,
    which fills the last chunk."""
    table = np.concatenate(lines)
    first = np.zeros(len(table), bool)
    first[np.cumsum([0, *(len(line) for line in lines[:-1])])] = True
    last = np.roll(first, -1)
    if noise.wrong:  # replaced words keep their punctuation, but their case is unknown
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
    # the rate of pauses varies from stretch to stretch
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
