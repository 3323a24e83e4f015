"""A group commit of readings: planned beside the directory, written as one transaction, then applied to the directory.

Until the transaction is on the disk a plan changes only the list of free slots, which it restores when the disk fails.
A request that can't be planned fails alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from streamer.names import SERIES_CHARACTERS, NameRefusedError, check_name, name_of
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.directory import Directory
from streamer.store.journal import Change, Record

__all__ = ["CommitPlan", "Planned", "Receipt", "RecordPart", "Refusal", "promise"]

T = TypeVar("T")
#: Readings of one record of the journal, and of one piece of a lane's work.
RECORD = 4096
#: In place of a slot: there is no room for the sensor; its name is invalid; too many readings of it wait to be run.
FULL, NAMELESS, BEHIND = -1, -2, -3
REASONS = {FULL: "capacity", NAMELESS: "name", BEHIND: "behind"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """``reason``: ``capacity`` (all places for sensors are taken), ``name`` (an invalid name) or ``behind`` (too many
    readings of the sensor wait to be run: the sender may try again later)."""

    reason: str
    count: int
    example: str

    def text(self, capacity: int) -> str:
        if self.reason == "name":
            what = f"what is not a name (1 to {SERIES_CHARACTERS} printable characters)"
            return f"{self.count} readings are of {what}, such as {self.example[:60]!a}"
        if self.reason == "behind":
            which = f"of sensors of which too many wait to be run (max_waiting_readings), such as {self.example[:200]}"
            return f"{self.count} readings are {which}: send them again later"
        what = f"more than {capacity} sensors (max_sensors)"
        return f"{self.count} readings are of {what}, such as {self.example[:200]}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """``taken``: number of readings that are on the disk. ``refusals``: one for each reason why others were refused."""

    taken: int
    refusals: tuple[Refusal, ...] = ()

    @property
    def refused(self) -> int:
        return sum(refusal.count for refusal in self.refusals)

    @property
    def later(self) -> bool:
        """Whether some of the refused readings would be taken later."""
        return any(refusal.reason == "behind" for refusal in self.refusals)


def promise() -> Future[Any]:
    """A future that its reader can't cancel: a client that goes away must not end the thread that keeps the promise."""
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(frozen=True, slots=True)
class RecordPart:
    """A record, the slots of its readings, and the indexes of these in their batch."""

    record: Record
    slots: NDArray[np.intp]
    at: NDArray[np.intp]


@dataclass(slots=True)
class Planned(Generic[T]):
    """The plan for one request. ``opened`` and ``closed``: sensors with their slots."""

    request: T
    receipt: Receipt
    parts: list[RecordPart] = field(default_factory=list)
    opened: list[tuple[str, int]] = field(default_factory=list)
    closed: list[tuple[str, int]] = field(default_factory=list)


class CommitPlan(Generic[T]):
    """One group, request by request, in order. ``next_seq``: of the first record. ``behind``: slots whose readings are
    refused for now."""

    def __init__(self, directory: Directory, next_seq: int, behind: NDArray[np.bool_] | None = None) -> None:
        self._directory, self.next_seq, self._behind = directory, next_seq, behind
        self._names: dict[str, int] = {}  # differences to the directory: slots by name, FULL: removed
        self._count = len(directory.slots)
        self.changes: list[Change] = []
        self.planned: list[Planned[T]] = []

    @property
    def records(self) -> list[Record]:
        return [part.record for planned in self.planned for part in planned.parts]

    def write(self, request: T, batch: ReadingBatch) -> None:
        """Plan a request's readings. On any exception the plan is unchanged."""
        opened: list[tuple[str, int]] = []
        try:
            slots = self._find(batch.names, opened)
            planned = Planned(request, _receipt(batch.names, slots), self._parts(batch, slots), opened)
        except BaseException:
            for _, slot in opened:
                self._directory.release(slot)
            raise
        self._names.update(opened)
        self._count += len(opened)
        self.changes += ((int(self._directory.ids[slot]), name) for name, slot in opened)
        self.next_seq += len(planned.parts)
        self.planned.append(planned)

    def forget(self, request: T, name: str, only: tuple[int, int] | None = None) -> None:
        """``only``: forget the sensor only if it still has this id, and no reading after this record."""
        slot = self._slot(name)
        if only is not None and slot >= 0 and only != self._last(slot):
            slot = FULL
        planned = Planned(request, Receipt(int(slot >= 0)))
        if slot >= 0:
            self._names[name] = FULL
            self._count -= 1
            self.changes.append((int(self._directory.ids[slot]), None))
            planned.closed.append((name, slot))
        self.planned.append(planned)

    def abandon(self) -> None:
        """Undo the plan: give the reserved slots back."""
        for planned in self.planned:
            for _, slot in planned.opened:
                self._directory.release(slot)

    def _last(self, slot: int) -> tuple[int, int]:
        """The id of the sensor, and the last record with a reading of it."""
        own = [p.record.seq for planned in self.planned for p in planned.parts if slot in p.slots]
        return int(self._directory.ids[slot]), max([int(self._directory.written[slot]), *own])

    def _slot(self, name: str) -> int:
        found = self._names.get(name)
        return self._directory.slots.get(name, FULL) if found is None else found

    def _find(self, names: Sequence[str], opened: list[tuple[str, int]]) -> NDArray[np.intp]:
        """Slots of all readings' sensors. New sensors get one, and are added to ``opened``."""
        get = self._directory.slots.get
        found = map(self._slot, names) if self._names else (get(name, FULL) for name in names)
        slots = np.fromiter(found, np.intp, len(names))
        own: dict[str, int] = {}
        for at in np.flatnonzero(slots < 0).tolist():
            name = names[at]
            if (slot := own.get(name, FULL)) < 0:
                slot = self._open(name, len(opened))
                if slot >= 0:
                    own[name] = slot
                    opened.append((name, slot))
            slots[at] = slot
        if self._behind is not None:
            slots[(slots >= 0) & self._behind[slots]] = BEHIND
        return slots

    def _open(self, name: str, more: int) -> int:
        try:
            check_name(name_of(name), SERIES_CHARACTERS)
        except NameRefusedError:
            return NAMELESS
        if self._count + more >= self._directory.capacity or (reserved := self._directory.reserve()) is None:
            return FULL
        return reserved[0]

    def _parts(self, batch: ReadingBatch, slots: NDArray[np.intp]) -> list[RecordPart]:
        kept = np.flatnonzero(slots >= 0)
        parts: list[RecordPart] = []
        for begin in range(0, len(kept), RECORD):
            at = kept[begin : begin + RECORD]
            ids = self._directory.ids[slots[at]]
            stamped = np.zeros(len(at), np.bool_) if batch.stamped is None else batch.stamped[at]
            record = Record(self.next_seq + len(parts), ids, batch.times[at], batch.values[at], stamped)
            parts.append(RecordPart(record, slots[at], at))
        return parts


def _receipt(names: Sequence[str], slots: NDArray[np.intp]) -> Receipt:
    refusals = []
    for code, reason in REASONS.items():
        refused = np.flatnonzero(slots == code)
        if len(refused):
            refusals.append(Refusal(reason, len(refused), name_of(names[int(refused[0])])))
    return Receipt(int((slots >= 0).sum()), tuple(refusals))
