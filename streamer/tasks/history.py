"""The words behind a beam's hypotheses: a table of back-pointers that is swept so that it stays small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.search import Unit

__all__ = ["COLUMNS", "NONE", "common", "sweep", "trace"]

#: Columns of the table [entries, 5], int64: entry before this one, word, first and last step, mean log-posterior
#: (float64 bits).
COLUMNS = PARENT, WORD, START, END, LOGP = range(5)
NONE = -1

Table = NDArray[np.int64]


def trace(table: Table, entry: int, words: list[str]) -> list[Unit]:
    """The words that end with ``entry``, oldest first."""
    rows = table[_chain(table, entry)]
    means = rows[:, LOGP].copy().view(np.float64).tolist()
    return [
        Unit(words[word], start, end, mean) for (_, word, start, end, _), mean in zip(rows.tolist(), means, strict=True)
    ]


def common(table: Table, entries: NDArray[np.int64]) -> int:
    """How many words all hypotheses agree on."""
    parents = table[:, PARENT]
    first, *others = dict.fromkeys(entries.tolist())
    chain = _chain(table, first)
    shared = {NONE: 0} | {entry: depth for depth, entry in enumerate(chain, 1)}  # words in common with the first
    for entry in others:
        apart = []
        while entry not in shared:
            apart.append(entry)
            entry = parents.item(entry)
        shared.update(dict.fromkeys(apart, shared[entry]))
    return min(shared[entry] for entry in others) if others else len(chain)


def sweep(table: Table, entries: NDArray[np.int64]) -> tuple[Table, NDArray[np.int64]]:
    """The table with nothing but what ``entries`` reach, in order, and ``entries`` renumbered; both are new arrays."""
    used = np.zeros(len(table), np.bool_)
    front = np.unique(entries[entries != NONE])
    while len(front):
        used[front] = True
        front = np.unique(table[front, PARENT])
        front = front[front != NONE]
        front = front[~used[front]]
    number = np.full(len(table) + 1, NONE, np.int64)  # its last element is where NONE points
    number[:-1][used] = np.arange(used.sum())
    kept = table[used]
    kept[:, PARENT] = number[kept[:, PARENT]]
    return kept, number[entries]


def _chain(table: Table, entry: int) -> list[int]:
    """The entries before ``entry`` and itself, oldest first."""
    parents, chain = table[:, PARENT], []
    while entry != NONE:
        chain.append(entry)
        entry = parents.item(entry)
    return chain[::-1]
