"""Pronunciations of words that the lexicon lacks, from their letters: a joint-sequence model.

A word is a sequence of pairs of a letter and its sound, which is up to two tokens (``x:K+S``, ``e:``). An n-gram model
over such pairs (Bisani & Ney 2008, doi 10.1016/j.specom.2008.01.002; here with single letters on the left) gives the
probability of a sequence, and a beam search over a word's letters finds the most probable ones. The model is packed in
the file of the acoustic model whose tokens it writes; :mod:`models.speech.letters` estimates it.
"""

from __future__ import annotations

import numpy as np

from streamer.tasks.transcribe.ngram import NGram

__all__ = ["LONGEST", "Letters", "pair"]

#: Maximum number of letters in a word; longer words are refused.
LONGEST = 40
BEAM = 32


def pair(letter: str, tokens: tuple[str, ...]) -> str:
    """The name of a pair in the model."""
    return f"{letter}:{'+'.join(tokens)}"


class Letters:
    """The pronunciation model, read-only. ``letters``: the lower-case letters that it knows."""

    def __init__(self, data: bytes) -> None:
        """``data``: an n-gram model (:class:`.ngram.NGram`) over pairs. Raises ``ValueError`` on anything else."""
        self._model = NGram(data)
        self._tokens: list[tuple[str, ...]] = []
        pairs: dict[str, list[int]] = {}
        for number, name in enumerate(self._model.words):
            letter, colon, tokens = name.partition(":")
            self._tokens.append(tuple(tokens.split("+")) if tokens else ())
            if colon:
                pairs.setdefault(letter, []).append(number)
        if not pairs:
            raise ValueError("the pronunciation model has no pairs of a letter and its sound")
        self._pairs = {letter: np.array(numbers, np.int64) for letter, numbers in pairs.items()}
        self.letters = frozenset(pairs)

    def tokens(self) -> set[str]:
        """All tokens that a pronunciation may contain."""
        return {token for tokens in self._tokens for token in tokens}

    def pronounce(self, word: str, most: int = 2, worst: float = 2.0) -> list[list[str]]:
        """The most probable pronunciations of a lower-case word, best first: at most ``most``, none of them ``worst``
        nats below the best. Raises ``ValueError`` for a word with anything but :attr:`letters`."""
        if not 0 < len(word) <= LONGEST or (strange := sorted(set(word) - self.letters)):
            raise ValueError(
                f"{word!r} can't be pronounced: {strange[0]!r} is not a known letter"
                if 0 < len(word) <= LONGEST
                else f"{word[:LONGEST]!r} can't be pronounced: a word has 1 to {LONGEST} letters"
            )
        score, state = np.zeros(1), np.array([self._model.begin])
        chains: list[tuple[int, ...]] = [()]
        for letter in word:
            choices = self._pairs[letter]
            source = np.arange(len(score)).repeat(len(choices))
            taken = np.tile(choices, len(score))
            logp, after = self._model.score(state[source], taken)
            total = score[source] + logp
            best = np.argsort(-total, kind="stable")[:BEAM]
            score, state = total[best], after[best]
            chains = [(*chains[source[i]], int(taken[i])) for i in best.tolist()]
        end, _ = self._model.score(state, np.full(len(state), self._model.end))
        score = score + end
        found: dict[tuple[str, ...], None] = {}
        order = np.argsort(-score, kind="stable")
        for i in order.tolist():
            tokens = tuple(token for number in chains[i] for token in self._tokens[number])
            if score[i] < score[order[0]] - worst or len(found) == most:
                break
            if tokens:
                found[tokens] = None
        return [list(tokens) for tokens in found]
