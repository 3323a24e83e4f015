"""The words of a beam's hypotheses: back-pointers in flat arrays, garbage-collected so that they stay small."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.search import Unit

__all__ = ["COLUMNS", "NONE", "WordHistory"]

#: Columns of a table [entries, 5], int64: entry before this one, word, first and last step, mean log-posterior
#: (float64 bits).
COLUMNS = PARENT, WORD, START, END, LOGP = range(5)
NONE = -1

Table = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class WordHistory:
    """Word entries, each with a back-pointer to the word before it. Entries are only appended, so copies of a state
    may share one table.

    Chains are walked entry by entry in Python, for which an ``array`` is fast and small.
    """

    links: array[int] = field(default_factory=lambda: array("q"))  # four for each entry: PARENT, WORD, START, END
    means: array[float] = field(default_factory=lambda: array("d"))

    @classmethod
    def of(cls, table: Table) -> WordHistory:
        made = cls()
        made.add(table)
        return made

    def __len__(self) -> int:
        return len(self.means)

    def add(self, table: Table) -> None:
        """Append the entries of a table [W, 5]."""
        self.extend(table[:, :LOGP], table[:, LOGP].copy().view(np.float64))

    def extend(self, links: NDArray[np.int64], means: NDArray[np.float64]) -> None:
        """Append entries: ``links`` [W, 4] and ``means`` [W]."""
        del self.links[LOGP * len(self.means) :]  # left by a call that failed between the two appends
        self.links.frombytes(links.tobytes())
        self.means.frombytes(means.tobytes())

    def table(self) -> Table:
        """All entries [entries, 5], a copy."""
        table = np.empty((len(self), len(COLUMNS)), np.int64)
        table[:, :LOGP] = np.frombuffer(self.links, np.int64).reshape(-1, LOGP)
        table[:, LOGP] = np.frombuffer(self.means, np.int64)
        return table

    def trace(self, entry: int, words: Sequence[str]) -> list[Unit]:
        """The words that end with ``entry``, oldest first."""
        return self.units(self.beyond(entry, [])[1], words)

    def units(self, chain: Sequence[int], words: Sequence[str]) -> list[Unit]:
        """The words of these entries."""
        links, means = self.links, self.means
        return [Unit(words[links[4 * e + 1]], links[4 * e + 2], links[4 * e + 3], means[e]) for e in chain]

    def beyond(self, entry: int, chain: Sequence[int]) -> tuple[int, list[int]]:
        """How many entries of ``chain`` are ancestors of ``entry``, and the entries after them up to ``entry``; oldest
        first."""
        links, same = self.links, len(chain)
        new: list[int] = []
        while entry != NONE:  # parents have lower numbers than their children, in the chain, too
            while same and chain[same - 1] > entry:
                same -= 1
            if same and chain[same - 1] == entry:
                return same, new[::-1]
            new.append(entry)
            entry = links[4 * entry]
        return 0, new[::-1]

    def common(self, entries: set[int], chain: Sequence[int], known: int = 0) -> int:
        """How many entries of ``chain`` are ancestors of all ``entries``; the last of ``chain`` is one of ``entries``.
        ``known``: a lower bound of the result."""
        links, least = self.links, len(chain)
        depth = {NONE: 0} | {entry: n for n, entry in enumerate(chain[max(0, known - 1) :], max(1, known))}
        for entry in entries:
            apart = []
            while entry not in depth:
                apart.append(entry)
                entry = links[4 * entry]
            least = min(least, depth[entry])
            depth.update(dict.fromkeys(apart, depth[entry]))
        return least

    def swept(self, entries: NDArray[np.int64]) -> tuple[Table, NDArray[np.int64]]:
        """The table of the entries reachable from ``entries``, in order, and ``entries`` renumbered; both new
        arrays."""
        table = self.table()
        used = np.zeros(len(table), np.bool_)
        front = np.unique(entries[entries != NONE])
        while len(front):
            used[front] = True
            front = np.unique(table[front, PARENT])
            front = front[front != NONE]
            front = front[~used[front]]
        number = np.full(len(table) + 1, NONE, np.int64)  # NONE (-1) indexes the last element
        number[:-1][used] = np.arange(used.sum())
        kept = table[used]
        kept[:, PARENT] = number[kept[:, PARENT]]
        return kept, number[entries]
