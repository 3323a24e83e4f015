"""A back-off n-gram language model as flat arrays: small in the file, queried for many (context, word) pairs at once.

Nodes are numbered order by order: 0 is the empty context, ``1 + w`` the unigram of word ``w``, then the bigrams
sorted by (context node, word), then the trigrams. So ``context * V + word`` rises with the node number, and one
binary search finds any n-gram. A *state* is the node of the longest known suffix of the history that can still be
extended (as in KenLM, Heafield 2011).

In the file, log-probabilities and back-off weights are 8-bit codes into tables per order
(:func:`models.speech.lm.to_bytes` writes it).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.snapshot import unpack

__all__ = ["NGram"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

#: The hash filter has 2 to this power buckets: ten times the n-grams of a model of 360,000.
BUCKET_BITS = 22


class NGram:
    """The model, read-only. ``words``: its vocabulary, with ``<s>``, ``</s>`` and ``<unk>``. Natural logarithms."""

    def __init__(self, data: bytes) -> None:
        """Raises ``ValueError`` if ``data`` is no such model."""
        try:
            facts, arrays = unpack(data)
        except ValueError as error:
            raise ValueError("not an n-gram model of this build") from error
        order = facts.get("order")
        if facts.get("kind") != "ngram-1" or not isinstance(order, int) or len(arrays) != 1 + 6 * order - 4:
            raise ValueError("not an n-gram model of this build")
        self.order = order
        self.words = arrays[0].astype(np.uint8).tobytes().decode().split("\n")
        self.index = {word: i for i, word in enumerate(self.words)}
        if missing := [w for w in ("<s>", "</s>", "<unk>") if w not in self.index]:
            raise ValueError(f"the n-gram model lacks {', '.join(missing)}")
        try:
            self._unpack(arrays[1:])
        except (IndexError, TypeError) as error:
            raise ValueError("the n-gram model is damaged: its arrays do not fit together") from error
        self.begin = self.state_of(self.index["<s>"])
        self.end = self.index["</s>"]

    def _unpack(self, arrays: list[NDArray[np.generic]]) -> None:
        """Arrays per order: log-probability codes and table, back-off codes and table, children per context, words."""
        size = len(self.words)
        logp, backoff = [np.zeros(1)], [np.zeros(1)]
        keys, parents, words = [np.zeros(0, np.int64)], [np.zeros(1 + size, np.int64)], [np.arange(-1, size)]
        left = iter(arrays)
        first, last = 1, 1 + size  # the nodes of the order below
        for n in range(1, self.order + 1):
            codes, table = next(left).astype(np.int64), next(left)
            logp.append(table.astype(np.float64)[codes])
            if n < self.order:
                codes, table = next(left).astype(np.int64), next(left)
                backoff.append(table.astype(np.float64)[codes])
            else:
                backoff.append(np.zeros(len(codes)))
            if n > 1:
                counts, word = next(left).astype(np.int64), next(left).astype(np.int64)
                if len(counts) != last - first or counts.sum() != len(codes) or len(word) != len(codes):
                    raise ValueError("the n-gram model is damaged: its orders do not fit together")
                parent = np.repeat(np.arange(first, last), counts)
                keys.append(parent * size + word)
                parents.append(parent)
                words.append(word)
                first, last = last, last + len(codes)
            elif len(codes) != size:
                raise ValueError("the n-gram model is damaged: not every word has a unigram")
        self._size = size
        self._logp, self._backoff = np.concatenate(logp), np.concatenate(backoff)
        self._keys = np.concatenate(keys)
        if (np.diff(self._keys) <= 0).any() or not np.isfinite(self._logp).all():
            raise ValueError("the n-gram model is damaged: its n-grams are not in order")
        #: The model lacks most of the n-grams that are looked up; this filter rejects most of them without a search.
        self._known = np.zeros(1 << BUCKET_BITS, np.bool_)
        self._known[_bucket(self._keys)] = True
        self._link(np.concatenate(parents), np.concatenate(words))

    def _link(self, parents: Ints, words: Ints) -> None:
        """Suffix links (node without its oldest word), and for every node the state that remains after it."""
        nodes = len(self._logp)
        extended = np.zeros(nodes, np.bool_)
        extended[parents[1 + self._size :]] = True
        extended[0] = True
        self._backoff[~extended] = 0.0
        self._suffix = np.zeros(nodes, np.int64)
        start, length = 1 + self._size, 2
        while start < nodes:  # order by order: the suffix of (p, w) is found from the suffix of p
            end = int(np.searchsorted(parents, start)) if length < self.order else nodes
            span = slice(start, end)
            self._suffix[span] = self._find(self._suffix[parents[span]], words[span])
            start, length = end, length + 1
        self._state = np.where(extended, np.arange(nodes), self._suffix)
        for _ in range(self.order):
            self._state = np.where(extended[self._state], self._state, self._suffix[self._state])

    @property
    def contexts(self) -> int:
        """States are numbers below this."""
        return len(self._logp)

    def state_of(self, word: int) -> int:
        """The state after ``word`` as the whole history."""
        return int(self._state[1 + word])

    def unigram(self, words: Ints) -> Floats:
        """``log p(word)`` [M] without context, for ``words`` [M]."""
        return np.asarray(self._logp[1 + words])

    def score(self, states: Ints, words: Ints) -> tuple[Floats, Ints]:
        """``log p(word | state)`` and the state after it, elementwise for [M] states and [M] words."""
        found, chain = 1 + words, [states]  # every word is known in the empty context
        while np.count_nonzero(shorter := self._suffix.take(chain[-1])):
            chain.append(shorter)
        key = np.concatenate(chain)
        key *= self._size
        key.reshape(len(chain), -1)[:] += words
        likely = self._known.take(_bucket(key)).nonzero()[0]
        key = key.take(likely)
        place = np.minimum(self._keys.searchsorted(key), len(self._keys) - 1)
        right = self._keys.take(place) == key
        # shorter contexts first, so that longer ones overwrite them
        likely, place = likely[right][::-1], place[right][::-1]
        level, at = np.divmod(likely, len(words))
        found[at] = 1 + self._size + place
        total = self._backoff.take(states)
        if len(chain) == 1:
            total[at] = 0.0
        else:
            backed = np.empty(len(words), np.int64)  # number of contexts that each word backs off from
            backed.fill(len(chain))
            backed[at] = level
            total *= backed > 0
            for i, state in enumerate(chain[1:], 1):
                total += self._backoff.take(state) * (backed > i)
        total += self._logp.take(found)
        return total, self._state.take(found)

    def sequence(self, words: Ints) -> Floats:
        """``log p`` [M] of each of ``words`` [M] after the words before it; the first word begins a sentence."""
        count = len(words)
        padded = np.concatenate([np.full(max(1, self.order - 1), self.index["<s>"]), words])
        state = self._state.take(1 + padded[:count])
        for place in range(1, self.order - 1):
            _, state = self.score(state, padded[place : place + count])
        return self.score(state, words)[0]

    def _find(self, states: Ints, words: Ints) -> Ints:
        """The nodes [M] of the longest n-grams that end with ``words`` [M] and begin inside ``states`` [M]."""
        states = states.copy()
        found, hit = self._lookup(states, words)
        while not hit.all():
            states = np.where(hit, states, self._suffix[states])
            found, hit = self._lookup(states, words)
        return found

    def _lookup(self, states: Ints, words: Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """The nodes [M] of (state, word), and whether they exist [M]; the empty context knows every word."""
        at_root = states == 0
        if not len(self._keys):
            return 1 + words, at_root | True
        key = states * self._size + words
        place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        hit = self._keys[place] == key
        return np.where(at_root, 1 + words, 1 + self._size + place), hit | at_root


def _bucket(keys: Ints) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = (keys.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - BUCKET_BITS)
    return mixed
