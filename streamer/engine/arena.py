"""The states of all streams of a model: one contiguous array per state tensor, ``[capacity, ...]``. A slot is one row
of each array, and of the arrays of conditions.

:class:`Slot` is the only handle: a row's index and the generation of its owner. A result with another generation is
late, that is for a former owner. Rows of different slots may be read and written by different threads concurrently. A
slot with a chunk in flight is first retired, and released when the chunk has come back, so that no late scatter can
reach the next owner.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.contract.manifest import Condition, State

__all__ = ["Arena", "ArenaError", "Slot"]

Indexes = NDArray[np.intp]


class ArenaError(ValueError):
    """The states of this many streams exceed the memory limit."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The handle of one owner of an arena row."""

    index: int
    generation: int


class Arena:
    """States and ``conditions`` of streams; conditions are gathered like states, but never scattered. Thread-safe."""

    def __init__(
        self, states: Sequence[State], capacity: int, max_bytes: int, conditions: Sequence[Condition] = ()
    ) -> None:
        each = sum(state.nbytes for state in states) + sum(given.nbytes for given in conditions)
        self.check(each, capacity, max_bytes)
        self.capacity = capacity
        self.bytes_per_slot = each
        #: The generation of each row's owner; a row without an owner has one that no slot has. For callers with
        #: columns, read-only.
        self.generations = np.zeros(capacity, np.int64)
        self._states, self._given = tuple(states), {given.name: given for given in conditions}
        # zeros() maps pages lazily: slots that were never used cost no memory
        self._rows = {s.in_: np.zeros((capacity, *s.shape), s.dtype) for s in states}
        self._rows |= {c.name: np.zeros((capacity, *c.shape), c.dtype) for c in conditions}
        self._free = list(range(capacity - 1, -1, -1))
        self._lock = threading.Lock()

    @staticmethod
    def check(each: int, capacity: int, max_bytes: int) -> None:
        """Raises :class:`ArenaError` where ``capacity`` streams of ``each`` bytes do not fit: before anything is made
        for them."""
        if each * capacity > max_bytes:
            raise ArenaError(
                f"{capacity} streams of {each} bytes of state need {each * capacity // 2**20} MiB, "
                f"{max_bytes // 2**20} MiB are allowed: lower capacity to {max_bytes // each}, or allow more"
            )

    @property
    def used(self) -> int:
        return self.capacity - len(self._free)

    # -- owners --------------------------------------------------------------------------------------------------------

    def acquire(self) -> Slot | None:
        """A slot of zeros, or ``None`` when all are taken."""
        with self._lock:
            if not self._free:
                return None
            index = self._free.pop()
        return self.renew(index)

    def renew(self, index: int) -> Slot:
        """Zero the row and give it a new generation, so that results for its former owner are late. Called by
        :meth:`acquire`; callers that assign rows themselves call it for each new stream."""
        with self._lock:
            self.generations[index] += 1
            slot = Slot(index, int(self.generations[index]))
        for rows in self._rows.values():
            rows[index] = 0
        return slot

    def slot(self, index: int) -> Slot:
        """The handle of the row's current owner."""
        return Slot(index, int(self.generations[index]))

    def current(self, slot: Slot) -> bool:
        return bool(self.generations[slot.index] == slot.generation)

    def retire(self, slot: Slot) -> None:
        """Make results for the slot's owner late from now on. The row is free only after :meth:`release`."""
        with self._lock:
            if self.generations[slot.index] == slot.generation:
                self.generations[slot.index] += 1

    def release(self, slot: Slot) -> None:
        """Free the row. Call once for each :meth:`acquire`, with no chunk of it in flight."""
        self.retire(slot)
        with self._lock:
            self._free.append(slot.index)

    # -- one stream ----------------------------------------------------------------------------------------------------

    def clear(self, slot: Slot) -> None:
        """Reset the stream: set its states to zeros, keep its conditions."""
        for state in self._states:
            self._rows[state.in_][slot.index] = 0

    def set_conditions(self, slot: Slot, given: Mapping[str, NDArray[Any]]) -> None:
        """Set the given conditions, leave the others. Raises ``ValueError`` before setting any."""
        for name, array in given.items():
            if name not in self._given:
                known = ", ".join(self._given) or "none"
                raise ValueError(f"the model has no condition {name!r}; there is {known}")
            self._fits(name, array)
            limits = self._given[name].limits
            if limits is not None and not ((array >= limits[0]) & (array <= limits[1])).all():
                raise ValueError(f"the condition {name!r} must be {limits[0]} to {limits[1]}")
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise ValueError(f"the condition {name!r} holds a number that is not finite")
        for name, array in given.items():
            self._rows[name][slot.index] = array

    def read(self, slot: Slot) -> dict[str, NDArray[Any]]:
        """A copy of one stream's states and conditions, without the batch axis."""
        return {name: rows[slot.index].copy() for name, rows in self._rows.items()}

    def write(self, slot: Slot, states: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of :meth:`read`. Raises ``ValueError`` if names, dtypes or shapes do not match the model."""
        if set(states) != set(self._rows):
            raise ValueError(f"the states {sorted(states)} are not the model's {sorted(self._rows)}")
        for name, array in states.items():
            self._fits(name, array)
        for name, rows in self._rows.items():
            rows[slot.index] = states[name]

    # -- batches -------------------------------------------------------------------------------------------------------

    def current_rows(self, indexes: Indexes, generations: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows still have the owners of these generations."""
        found: NDArray[np.bool_] = self.generations[indexes] == generations
        return found

    def gather(self, indexes: Indexes, into: Mapping[str, NDArray[Any]]) -> None:
        """Copy rows ``indexes`` to the first rows of the arrays in ``into``, keyed by input name."""
        n = len(indexes)
        for name, rows in self._rows.items():
            rows.take(indexes, axis=0, out=into[name][:n], mode="clip")  # "raise" would copy through a buffer

    def views(self, indexes: Indexes) -> dict[str, NDArray[Any]] | None:
        """Views of the rows that :meth:`gather` would copy, valid until the next :meth:`scatter`; ``None`` if the slots
        are not consecutive."""
        where = _side_by_side(indexes)
        return None if where is None else {name: rows[where] for name, rows in self._rows.items()}

    def scatter(self, indexes: Indexes, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Copy the first rows of the new states, keyed by output name, back to their slots."""
        n, where = len(indexes), _side_by_side(indexes)
        for state in self._states:
            self._rows[state.in_][indexes if where is None else where] = outputs[state.out][:n]

    def _fits(self, name: str, array: NDArray[Any]) -> None:
        rows = self._rows[name]
        if array.dtype != rows.dtype or array.shape != rows.shape[1:]:
            kind = "condition" if name in self._given else "state"
            raise ValueError(f"{kind} {name!r} is {array.dtype} {array.shape}, not {rows.dtype} {rows.shape[1:]}")


def _side_by_side(indexes: Indexes) -> slice | None:
    first, n = int(indexes[0]), len(indexes)
    if int(indexes[-1]) - first != n - 1 or (n > 2 and np.count_nonzero(indexes[1:] - indexes[:-1] != 1)):
        return None
    return slice(first, first + n)
