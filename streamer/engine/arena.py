"""The memory of all streams of a model: one contiguous array per state tensor, ``[capacity, ...]``; a slot is one row
of each.

Rows of different slots may be read and written by different threads at once. Who owns a slot is the engine's
business: it never frees one whose chunk is in flight, so that no late scatter can reach the next owner.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import State

__all__ = ["Arena", "ArenaError"]


class ArenaError(ValueError):
    """The states of this many streams do not fit into the memory that is allowed."""


class Arena:
    def __init__(self, states: Sequence[State], capacity: int, max_bytes: int) -> None:
        each = sum(state.nbytes for state in states)
        if each * capacity > max_bytes:
            raise ArenaError(
                f"{capacity} streams of {each} bytes of state need {each * capacity / 2**20:.0f} MiB, "
                f"{max_bytes / 2**20:.0f} MiB are allowed: lower capacity to {max_bytes // each}, or allow more"
            )
        self.capacity = capacity
        self.bytes_per_slot = each
        self.generations = [0] * capacity
        self._states = tuple(states)
        # zeros() maps pages lazily: slots that were never used cost no memory
        self._rows = {s.in_: np.zeros((capacity, *s.shape), s.dtype) for s in states}
        self._free = list(range(capacity - 1, -1, -1))
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        return self.capacity - len(self._free)

    def acquire(self) -> int | None:
        """A slot of zeros, or ``None`` when all are taken."""
        with self._lock:
            if not self._free:
                return None
            slot = self._free.pop()
            self.generations[slot] += 1
        self.clear(slot)
        return slot

    def release(self, slot: int) -> None:
        with self._lock:
            self._free.append(slot)

    def retire(self, slot: int) -> None:
        """From here on results for the slot's owner are late. The slot itself is free only after :meth:`release`."""
        with self._lock:
            self.generations[slot] += 1

    def clear(self, slot: int) -> None:
        for rows in self._rows.values():
            rows[slot] = 0

    def gather(self, slots: NDArray[np.intp], into: Mapping[str, NDArray[Any]]) -> None:
        """Rows ``slots`` to the first rows of the arrays in ``into``, keyed by input name."""
        n = len(slots)
        for name, rows in self._rows.items():
            rows.take(slots, axis=0, out=into[name][:n], mode="clip")  # "raise" would copy through a buffer

    def views(self, slots: NDArray[np.intp]) -> dict[str, NDArray[Any]] | None:
        """What :meth:`gather` gives without its copy, to be read until the next :meth:`scatter`; ``None`` where the
        slots don't follow one another."""
        where = _side_by_side(slots)
        return None if where is None else {name: rows[where] for name, rows in self._rows.items()}

    def scatter(self, slots: NDArray[np.intp], outputs: Mapping[str, NDArray[Any]]) -> None:
        """The first rows of the new states, keyed by output name, back to their slots."""
        n, where = len(slots), _side_by_side(slots)
        for state in self._states:
            self._rows[state.in_][slots if where is None else where] = outputs[state.out][:n]

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        """A copy of one stream's states, without the batch axis."""
        return {name: rows[slot].copy() for name, rows in self._rows.items()}

    def write(self, slot: int, states: Mapping[str, NDArray[Any]]) -> None:
        """Raises ``ValueError`` if names, dtypes or shapes are not this model's."""
        if set(states) != set(self._rows):
            raise ValueError(f"the states {sorted(states)} are not the model's {sorted(self._rows)}")
        for name, rows in self._rows.items():
            array = states[name]
            if array.dtype != rows.dtype or array.shape != rows.shape[1:]:
                raise ValueError(f"state {name!r} is {array.dtype} {array.shape}, not {rows.dtype} {rows.shape[1:]}")
        for name, rows in self._rows.items():
            rows[slot] = states[name]


def _side_by_side(slots: NDArray[np.intp]) -> slice | None:
    first, n = int(slots[0]), len(slots)
    if slots[-1] - first != n - 1 or not (np.diff(slots) == 1).all():
        return None
    return slice(first, first + n)
