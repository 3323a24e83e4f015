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
    logp = table[:, LOGP].view(np.float64) if len(table) == 1 else np.ascontiguousarray(table[:, LOGP]).view(np.float64)
    units = []
    while entry != NONE:
        parent, word, start, end, _ = table[entry].tolist()
        units.append(Unit(words[word], start, end, float(logp[entry])))
        entry = parent
    return units[::-1]


def common(table: Table, entries: NDArray[np.int64]) -> int:
    """How many words all hypotheses agree on: the depth of their last common entry."""
    left = set(entries.tolist())
    while len(left) > 1:  # parents stand before their children
        latest = max(left)
        left.remove(latest)
        left.add(int(table[latest, PARENT]))
    (entry,) = left
    depth = 0
    while entry != NONE:
        entry, depth = int(table[entry, PARENT]), depth + 1
    return depth


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
