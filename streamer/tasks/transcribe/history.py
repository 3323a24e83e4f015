"""The words behind a beam's hypotheses: a table of back-pointers that is swept so that it stays small."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from streamer.tasks.transcribe.search import Unit

__all__ = ["COLUMNS", "NONE", "beyond", "common", "sweep", "trace", "units"]

#: Columns of the table [entries, 5], int64: entry before this one, word, first and last step, mean log-posterior
#: (float64 bits).
COLUMNS = PARENT, WORD, START, END, LOGP = range(5)
NONE = -1

Table = NDArray[np.int64]


def trace(table: Table, entry: int, words: list[str]) -> list[Unit]:
    """The words that end with ``entry``, oldest first."""
    return units(table, beyond(table, entry, [])[1], words)


def units(table: Table, chain: list[int], words: list[str]) -> list[Unit]:
    """The words of these entries."""
    rows = table[chain]
    means = rows[:, LOGP].copy().view(np.float64).tolist()
    return [
        Unit(words[word], start, end, mean) for (_, word, start, end, _), mean in zip(rows.tolist(), means, strict=True)
    ]


def beyond(table: Table, entry: int, chain: list[int]) -> tuple[int, list[int]]:
    """How many entries of ``chain`` come before ``entry``, and those between, itself included; all oldest first."""
    parents, same = table[:, PARENT], len(chain)
    new: list[int] = []
    while entry != NONE:  # parents have lower numbers than their children, in the chain, too
        while same and chain[same - 1] > entry:
            same -= 1
        if same and chain[same - 1] == entry:
            return same, new[::-1]
        new.append(entry)
        entry = parents.item(entry)
    return 0, new[::-1]


def common(table: Table, entries: set[int], chain: list[int], known: int = 0) -> int:
    """How many entries of ``chain`` come before all of ``entries``, one of which is its last. ``known``: at least."""
    parents, least = table[:, PARENT], len(chain)
    depth = {NONE: 0} | {entry: n for n, entry in enumerate(chain[max(0, known - 1) :], max(1, known))}
    for entry in entries:
        apart = []
        while entry not in depth:
            apart.append(entry)
            entry = parents.item(entry)
        least = min(least, depth[entry])
        depth.update(dict.fromkeys(apart, depth[entry]))
    return least


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
