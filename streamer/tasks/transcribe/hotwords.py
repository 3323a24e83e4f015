"""Hotwords: a bonus on top of the language model's score for phrases that a stream's user expects.

:class:`Biased` has the language model's interface, so the search needs no change. Its state is the language model's
plus a state of the phrases' automaton (Aho & Corasick 1975): each word that extends a phrase earns the bonus at once,
so that the beam keeps it, and the bonus is taken back if the phrase breaks off before its end.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.ngram import NGram

__all__ = ["Biased", "LanguageModel", "phrase"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
#: Maximum number of words in one phrase.
MOST_WORDS = 8


def phrase(text: str) -> tuple[str, ...]:
    """The words of a phrase: ``"New-York Times"`` -> ``("New", "York", "Times")``. Accents are removed. Raises
    ``ValueError`` for characters other than letters and apostrophes, and for too many words."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    words = tuple(
        word.strip("'") for word in re.split(r"[\s\-_.,]+", plain.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    )
    words = tuple(word for word in words if word)
    if not 1 <= len(words) <= MOST_WORDS or not all(re.fullmatch(r"[A-Za-z']+", word) for word in words):
        raise ValueError(
            f"hotwords: {text[:60]!r} is not 1 to {MOST_WORDS} words of the letters a to z; write numbers in words"
        )
    return words


class Biased:
    """A language model, or none, with a bonus for phrases. Same interface as :class:`.ngram.NGram`; read-only.

    Words have the model's numbers. Words that the model does not know are numbered after its own, and each scores like
    its rarest word. Without a model every word scores 0, and words outside all phrases have the number 0. ``bonus``:
    nats for each word.
    """

    def __init__(self, lm: NGram | None, phrases: Sequence[tuple[str, ...]], bonus: float) -> None:
        self._lm, self._bonus = lm, bonus
        self._size = 1 if lm is None else len(lm.words)
        known: Mapping[str, int] = {} if lm is None else lm.index
        names = dict.fromkeys(word for words in phrases for word in words)
        new = [word for word in names if word not in known]
        self.numbers = {word: known[word] for word in names if word in known}
        self.numbers |= {word: self._size + i for i, word in enumerate(new)}
        self._unknown = 0 if lm is None else lm.index["<unk>"]
        self._rare = 0.0
        if lm is not None:
            unigrams = lm.unigram(np.arange(self._size))
            begin = lm.index["<s>"]
            self._rare = float(np.delete(unigrams, begin).min() - unigrams[self._unknown])
        self._column = np.zeros(self._size + len(new), np.int64)
        for column, number in enumerate(self.numbers.values(), 1):
            self._column[number] = column
        self._build([[self.numbers[word] for word in words] for words in phrases])
        self._contexts = 1 if lm is None else lm.contexts
        self.begin = 0 if lm is None else lm.begin
        self.end = 0 if lm is None else lm.end

    def _build(self, phrases: Sequence[Sequence[int]]) -> None:
        """Build the automaton, [nodes, columns]: ``_next``, the node after a word; ``_gain``, the word's bonus."""
        width = len(self.numbers) + 1
        children: list[dict[int, int]] = [{}]
        parent, depth, risk, ends = [-1], [0], [0.0], {0}
        for words in phrases:
            at = 0
            for word in words:
                column = int(self._column[word])
                if column not in children[at]:
                    children[at][column] = len(children)
                    children.append({})
                    parent.append(at)
                    depth.append(depth[at] + 1)
                at = children[at][column]
            ends.add(at)
        order = sorted(range(len(children)), key=lambda node: depth[node])
        risk = [0.0] * len(children)
        following = np.zeros((len(children), width), np.int64)
        fail = [0] * len(children)
        for node in order:
            if node:
                risk[node] = 0.0 if node in ends else risk[parent[node]] + self._bonus
                following[node] = following[fail[node]]
            for column, child in children[node].items():
                fail[child] = int(following[fail[node], column]) if node else 0
                following[node, column] = child
        at_risk, deep = np.array(risk), np.array(depth)
        longer = np.array(parent)[following] == np.arange(len(children))[:, None]
        self._next = following
        self._gain = np.where(longer, self._bonus, self._bonus * deep[following] - at_risk[:, None])
        self._first = np.zeros(len(self._column))
        for column in children[0]:
            self._first[self._column == column] = self._bonus

    @property
    def contexts(self) -> int:
        """States are numbers below this."""
        return len(self._next) * self._contexts

    def unigram(self, words: Ints) -> Floats:
        """Each word's score without context, with the bonus of words that begin a phrase."""
        if self._lm is None:
            return np.asarray(self._first.take(words))
        new = words >= self._size
        plain = self._lm.unigram(np.where(new, self._unknown, words)) + np.where(new, self._rare, 0.0)
        return np.asarray(plain + self._first.take(words))

    def score(self, states: Ints, words: Ints) -> tuple[Floats, Ints]:
        """As :meth:`.ngram.NGram.score`, with the phrases' bonus."""
        node, before = np.divmod(states, self._contexts)
        column = self._column.take(words)
        total = self._gain[node, column]
        after = self._next[node, column] * self._contexts
        if self._lm is not None:
            new = words >= self._size
            logp, state = self._lm.score(before, np.where(new, self._unknown, words))
            total += logp
            total[new] += self._rare
            after += state
        return total, after


#: The type of language model that a search takes.
LanguageModel = NGram | Biased
