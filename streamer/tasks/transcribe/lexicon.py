"""A pronunciation lexicon as a prefix tree in flat arrays, with language-model look-ahead.

Look-ahead (Ortmanns, Ney & Eiden 1996): every node knows the best unigram log-probability among the words below it,
so that a hypothesis pays for its next word while it is still inside, and a small beam keeps the right ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.ngram import NGram

__all__ = ["Lexicon", "parse", "trivial"]

Entries = list[tuple[str, list[int]]]


class Lexicon:
    """Node 0 is the root, where words begin.

    ``children`` [nodes, V]: the node that a token leads to, -1 for none. ``first`` [nodes], ``count`` [nodes]: where
    in ``ends`` a node's words are. ``leaf`` [nodes]: nothing goes on from here. ``words``: spellings; ``lm_word``
    [words]: their number in the language model. ``ahead`` [nodes]: the look-ahead, 0 at the root and without a
    language model.
    """

    def __init__(self, entries: Entries, vocabulary: int, boundary: int | None, lm: NGram | None) -> None:
        self.words = list(dict.fromkeys(word for word, _ in entries))
        number = {word: i for i, word in enumerate(self.words)}
        nodes: list[dict[int, int]] = [{}]
        ends: list[list[int]] = [[]]
        for word, tokens in entries:
            node = 0
            for token in tokens:
                following = nodes[node].get(token)
                if following is None:
                    following = nodes[node][token] = len(nodes)
                    nodes.append({})
                    ends.append([])
                node = following
            if number[word] not in ends[node]:
                ends[node].append(number[word])
        self.children = np.full((len(nodes), vocabulary), -1, np.int32)
        for node, following_nodes in enumerate(nodes):
            for token, following in following_nodes.items():
                self.children[node, token] = following
        self.leaf = np.array([not following_nodes for following_nodes in nodes])
        if boundary is not None and boundary not in nodes[0]:
            self.children[0, boundary] = 0
        self.count = np.array([len(e) for e in ends], np.int64)
        self.first = np.cumsum(self.count) - self.count
        self.ends = np.array([w for e in ends for w in e], np.int64)
        self.lm_word = np.zeros(len(self.words), np.int64)
        self.ahead = np.zeros(len(nodes))
        if lm is not None:
            unknown = lm.index["<unk>"]
            self.lm_word = np.array([lm.index.get(word, unknown) for word in self.words], np.int64)
            self._look_ahead(nodes, ends, lm.unigram(self.lm_word))

    def _look_ahead(self, nodes: list[dict[int, int]], ends: list[list[int]], unigram: NDArray[np.float64]) -> None:
        for node in range(len(nodes) - 1, 0, -1):  # children have higher numbers than their parents
            below = [self.ahead[n] for n in nodes[node].values()] + [unigram[w] for w in ends[node]]
            self.ahead[node] = max(below)


def parse(text: str, tokens: Sequence[str]) -> Entries:
    """Lines ``WORD<tab>TOKEN TOKEN ...``. Raises ``ValueError`` with the line's number on anything else."""
    index = {token: i for i, token in enumerate(tokens)}
    entries: Entries = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, pronunciation = line.partition("\t")
        names = pronunciation.split()
        if not word or not names:
            raise ValueError(f"lexicon line {number}: {line!r} is not WORD<tab>TOKEN TOKEN ...")
        if unknown := [name for name in names if name not in index]:
            raise ValueError(f"lexicon line {number}: {word} has {' '.join(unknown)}, which the model does not know")
        entries.append((word, [index[name] for name in names]))
    if not entries:
        raise ValueError("the lexicon is empty")
    return entries


def trivial(tokens: Sequence[str], blank: int) -> Entries:
    """Every token is a word: what decoding without a lexicon means."""
    return [(token, [i]) for i, token in enumerate(tokens) if i != blank]
