"""A pronunciation lexicon as a prefix tree in flat arrays, with language-model look-ahead.

Look-ahead (Ortmanns, Ney & Eiden 1996): every node has the best unigram log-probability among the words below it. A
hypothesis is thus charged for its next word before the word ends, and a small beam keeps the right hypotheses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from copy import copy
from functools import cached_property
from mmap import ACCESS_COPY, mmap
from tempfile import TemporaryFile
from threading import Lock
from typing import IO
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import MAX_MODEL_BYTES
from streamer.tasks.transcribe.hotwords import Biased, phrase
from streamer.tasks.transcribe.letters import Letters
from streamer.tasks.transcribe.ngram import NGram

__all__ = ["Lexicon", "parse", "pronounced", "trivial"]

#: Memory of a parsed line in bytes: a string, a list and a tuple.
ENTRY_BYTES = 250
#: Words in capitals of at most this many letters may also be said letter by letter.
SPELLED = 5

Entries = list[tuple[str, list[int]]]


class Lexicon:
    """Node 0 is the root, where words begin.

    ``children`` [nodes, V]: the node that a token leads to, -1 for none. ``first`` [nodes], ``count`` [nodes]: the
    slice of ``ends`` with a node's words. ``leaf`` [nodes]: the node has no children. ``words``: spellings; ``lm_word``
    [words]: their numbers in the language model. ``ahead`` [nodes]: the look-ahead, 0 at the root and without a
    language model. ``parent`` [nodes]: -1 for the root.
    """

    def __init__(
        self,
        entries: Entries,
        vocabulary: int,
        boundary: int | None,
        lm: NGram | None,
        max_bytes: int = MAX_MODEL_BYTES,
    ) -> None:
        self._sharing = Lock()  # streams are opened in several threads
        self._shared: IO[bytes] | None = None
        self._room = 0
        self.words = list(dict.fromkeys(word for word, _ in entries))
        number = {word: i for i, word in enumerate(self.words)}
        words = np.array([number[word] for word, _ in entries], np.int64)
        lengths = np.array([len(tokens) for _, tokens in entries], np.int64)
        longest = int(lengths.max(initial=0))
        _allow(8 * len(entries) * longest, max_bytes, f"{len(entries)} words of up to {longest} tokens")
        tokens = np.full((len(entries), longest), -1, np.int64)
        tokens[np.arange(tokens.shape[1]) < lengths[:, None]] = [t for _, path in entries for t in path]
        node, self.parent, token, depth = _tree(tokens, vocabulary)
        nodes = len(self.parent)
        _allow(4 * nodes * vocabulary, max_bytes, f"a tree of {nodes} nodes and {vocabulary} tokens")
        self.children = np.full((nodes, vocabulary), -1, np.int32)
        self.children[self.parent[1:], token[1:]] = np.arange(1, nodes)
        self.leaf = np.ones(nodes, np.bool_)
        self.leaf[self.parent[1:]] = False
        if boundary is not None and self.children[0, boundary] < 0:
            self.children[0, boundary] = 0
        _, once = np.unique(node * len(self.words) + words, return_index=True)
        once.sort()
        order = once[node[once].argsort(kind="stable")]
        self.count = np.bincount(node[order], minlength=nodes)
        self.first = np.cumsum(self.count) - self.count
        self.ends = words[order]
        self.lm_word = np.zeros(len(self.words), np.int64)
        self.ahead = np.zeros(nodes)
        if lm is not None:
            unknown = lm.index["<unk>"]
            self.lm_word = np.array([lm.index.get(word, unknown) for word in self.words], np.int64)
            self._look_ahead(lm.unigram(self.lm_word), depth)

    def _look_ahead(self, unigram: NDArray[np.float64], depth: NDArray[np.int64]) -> None:
        """Compute ``ahead`` from the words' unigrams [words] and the nodes' depths [nodes]."""
        ahead = np.full(len(self.parent), -np.inf)
        np.maximum.at(ahead, np.arange(len(ahead)).repeat(self.count), unigram[self.ends])
        for level in range(int(depth.max()), 1, -1):
            nodes = (depth == level).nonzero()[0]
            np.maximum.at(ahead, self.parent[nodes], ahead[nodes])
        ahead[0] = 0.0
        self.ahead = ahead

    def __contains__(self, word: str) -> bool:
        return word in self._number

    def pronunciations(self, word: str) -> list[list[int]]:
        """The tokens of each pronunciation of a word; empty for an unknown word."""
        found = []
        for node in self._nodes(word):
            tokens = []
            while node:
                above = int(self.parent[node])
                tokens.append(int((self.children[above] == node).nonzero()[0][0]))
                node = above
            found.append(tokens[::-1])
        return found

    def _nodes(self, word: str) -> list[int]:
        """The nodes at which a word ends."""
        number = self._number.get(word)
        if number is None:
            return []
        places = (self.ends == number).nonzero()[0].tolist()  # stale where a node's words have moved
        holding = [((self.first <= place) & (place < self.first + self.count)).nonzero()[0] for place in places]
        return [int(nodes[0]) for nodes in holding if len(nodes)]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}

    def with_words(self, entries: Entries, lm: Biased) -> Lexicon:
        """A lexicon with these words added and with look-ahead from ``lm``. The large table of children is shared
        copy-on-write, page by page. Existing words and nodes keep their numbers."""
        made = copy(self)
        made.__dict__.pop("_number", None)
        made._shared, made._room = None, 0
        new = list(dict.fromkeys(word for word, _ in entries if word not in self))
        made.words = self.words + new
        made.lm_word = np.concatenate([self.lm_word, np.zeros(len(new), np.int64)])
        made.children = self._private_children(sum(len(tokens) for _, tokens in entries))
        made._graft(entries)
        numbers = {word: made._number[word] for word in lm.numbers if word in made}
        for word, number in numbers.items():
            made.lm_word[number] = lm.numbers[word]
            unigram = float(lm.unigram(made.lm_word[number : number + 1])[0])
            for node in made._nodes(word):
                while node:
                    made.ahead[node] = max(made.ahead[node], unigram)
                    node = int(made.parent[node])
        return made

    def _graft(self, entries: Entries) -> None:
        """Add paths of new words to ``children``, which has room for them, and extend the other arrays of nodes."""
        nodes = len(self.parent)
        parents: list[int] = []
        ends: dict[int, list[int]] = {}
        for word, tokens in entries:
            node = 0
            for token in tokens:
                following = int(self.children[node, token])
                if following <= 0:
                    following = nodes + len(parents)
                    self.children[node, token] = following
                    self.children[following] = -1
                    parents.append(node)
                node = following
            ends.setdefault(node, []).append(self._number[word])
        more = len(parents)
        self.children = self.children[: nodes + more]
        self.parent = np.concatenate([self.parent, np.array(parents, np.int64)])
        self.leaf = np.concatenate([self.leaf, np.ones(more, np.bool_)])
        self.leaf[self.parent[nodes:]] = False
        self.ahead = np.concatenate([self.ahead, np.full(more, -np.inf)])
        self.first = np.concatenate([self.first, np.zeros(more, np.int64)])
        self.count = np.concatenate([self.count, np.zeros(more, np.int64)])
        blocks, behind = [self.ends], len(self.ends)
        for node, words in ends.items():  # a node's words are adjacent, so a list that grows moves to the end
            old = self.ends[self.first[node] : self.first[node] + self.count[node]].tolist()
            block = list(dict.fromkeys(old + words))
            self.first[node], self.count[node] = behind, len(block)
            blocks.append(np.array(block, np.int64))
            behind += len(block)
        self.ends = np.concatenate(blocks)

    def _private_children(self, more: int) -> NDArray[np.int32]:
        """A copy-on-write view of the table of children, with room for ``more`` nodes."""
        rows, columns = self.children.shape
        size = 4 * columns * (rows + more)
        with self._sharing:
            if self._shared is None:
                self._shared = _memory_file()
                finalize(self, self._shared.close)
                self._shared.write(self.children.tobytes())
                self._shared.flush()
            if size > self._room:
                self._shared.truncate(size)
                self._room = size
        return np.frombuffer(mmap(self._shared.fileno(), size, access=ACCESS_COPY), np.int32).reshape(-1, columns)


def _memory_file() -> IO[bytes]:
    """An anonymous file in memory (memfd), or a temporary file where the system has no memfd."""
    return open(os.memfd_create("lexicon"), "r+b") if sys.platform == "linux" else TemporaryFile()


def _tree(tokens: NDArray[np.int64], vocabulary: int) -> tuple[NDArray[np.int64], ...]:
    """The tree of paths [E, L], padded with -1: the end node of each path [E], and every node's parent, token and
    depth.

    Nodes are numbered in order of first use, path after path: children have higher numbers than their parents.
    """
    at = np.zeros(len(tokens), np.int64)
    met = [np.zeros((1, 4), np.int64) - [0, 0, 1, 1]]  # path and depth of first use, parent, token
    nodes = 1
    for depth in range(tokens.shape[1]):
        active = (tokens[:, depth] >= 0).nonzero()[0]
        key = at[active] * vocabulary + tokens[active, depth]
        key, first, which = np.unique(key, return_index=True, return_inverse=True)
        parent, token = np.divmod(key, vocabulary)
        met.append(np.stack([active[first], np.full(len(key), depth + 1), parent, token], axis=1))
        at[active] = nodes + which
        nodes += len(key)
    table = np.concatenate(met)
    order = np.lexsort((table[:, 1], table[:, 0]))
    order = np.concatenate([[0], order[order != 0]])
    number = np.empty(nodes, np.int64)
    number[order] = np.arange(nodes)
    parent = table[order, 2]
    parent[1:] = number[parent[1:]]
    return number[at], parent, table[order, 3], table[order, 1]


def _allow(count: int, most: int, what: str) -> None:
    """Raise ``ValueError`` before ``count`` bytes are allocated, if only ``most`` are allowed."""
    if count > most:
        raise ValueError(
            f"its lexicon takes {count} bytes ({what}), {most} are allowed: allow more with the setting max_model_bytes"
        )


def parse(text: str, tokens: Sequence[str], max_bytes: int = MAX_MODEL_BYTES) -> Entries:
    """Parse lines ``WORD<tab>TOKEN TOKEN ...``. Raises ``ValueError`` with the line's number for any other line, and
    for a lexicon that would take more than ``max_bytes`` of memory."""
    lines = text.count("\n") + 1
    _allow(ENTRY_BYTES * lines + 8 * text.count(" "), max_bytes, f"{lines} lines of {len(text)} characters")
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
    """The lexicon in which every token is a word, for decoding without a lexicon."""
    return [(token, [i]) for i, token in enumerate(tokens) if i != blank]


def pronounced(
    hotwords: Sequence[str], lexicon: Lexicon, letters: Letters | None, tokens: Sequence[str]
) -> tuple[list[tuple[str, ...]], Entries]:
    """Hotword phrases in the lexicon's spelling, and pronunciations of the words that it lacks: from ``letters``, and
    for short words in capitals (``API``) also letter by letter. Raises ``ValueError`` for a word without a
    pronunciation."""
    index = {token: i for i, token in enumerate(tokens)}
    phrases: dict[tuple[str, ...], None] = {}
    entries: Entries = []
    for text in hotwords:
        words = []
        for given in phrase(text):
            word = next((case for case in (given, given.lower(), given.upper()) if case in lexicon), given.lower())
            if word not in lexicon:
                if letters is None:
                    raise ValueError(
                        f"hotwords: {given!r} is not in the model's lexicon, and the model has no pronunciation model"
                    )
                sounds = [
                    [index[token] for token in sound] for sound in letters.pronounce(word) if set(sound) <= index.keys()
                ]
                if given.isupper() and len(given) <= SPELLED:
                    sounds += _spelled(word, lexicon)
                if not sounds:
                    raise ValueError(f"hotwords: the model has no pronunciation of {given!r}")
                entries += [(word, sound) for sound in sounds]
            words.append(word)
        phrases[tuple(words)] = None
    return list(phrases), entries


def _spelled(word: str, lexicon: Lexicon) -> list[list[int]]:
    """The names of the letters as one pronunciation; none if the lexicon lacks a letter."""
    names = [lexicon.pronunciations(letter) for letter in word]
    return [[token for name in names for token in name[-1]]] if all(names) else []
