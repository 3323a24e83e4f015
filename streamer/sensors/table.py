"""All kept state of a model's sensors, by slot, shared by all lanes of a fleet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics
from streamer.sensors.columns import StepResult
from streamer.sensors.directory import Directory
from streamer.sensors.history import History
from streamer.sensors.latest import Latest
from streamer.sensors.layout import RowLayout, state_layout
from streamer.sensors.scores import Track
from streamer.sensors.timeline import Timelines

__all__ = ["Parts", "Progress", "SensorTable", "Watcher"]

Slots = NDArray[np.intp]
#: The saved state of one slot: arrays by name, by part.
Parts = dict[str, dict[str, NDArray[Any]]]


class Watcher(Protocol):
    def __call__(self, result: StepResult, /) -> None:
        """Takes results of readings. Called by lanes, which wait for it. Its exceptions are logged."""


class Progress:
    """The progress of each stream within a record: ``ran`` readings after :attr:`SensorTable.applied`; for the next
    reading, if it is ``placed``, the number of steps ``masked`` before it, and its break."""

    def __init__(self, capacity: int) -> None:
        self.ran = np.zeros(capacity, np.int64)
        self._masked = np.zeros(capacity, np.int64)
        self._breaks = np.zeros(capacity, np.uint8)
        self._placed = np.zeros(capacity, np.bool_)

    def of(self, slots: Slots) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.bool_]]:
        """Copies: masked, breaks, placed."""
        return self._masked[slots], self._breaks[slots], self._placed[slots]

    def keep(
        self, slots: Slots, masked: NDArray[np.int64], breaks: NDArray[np.uint8], placed: NDArray[np.bool_]
    ) -> None:
        self._masked[slots], self._breaks[slots], self._placed[slots] = masked, breaks, placed

    def clear(self, slot: int) -> None:
        self.ran[slot] = self._masked[slot] = self._breaks[slot] = 0
        self._placed[slot] = False

    def read(self, slot: int) -> dict[str, NDArray[Any]]:
        found = (self.ran[slot], self._masked[slot], self._breaks[slot], self._placed[slot])
        return {"progress": np.array(found, np.int64)}

    def write(self, slot: int, saved: Mapping[str, NDArray[Any]]) -> None:
        self.ran[slot], self._masked[slot], self._breaks[slot], self._placed[slot] = saved["progress"].tolist()


@dataclass(slots=True)
class SensorTable:
    """``track`` has a row for each target of each slot, all other parts one for each slot. ``limit``: of a batch."""

    layout: RowLayout
    directory: Directory
    model: Model
    arena: Arena
    timelines: Timelines
    track: Track
    latest: Latest
    history: History
    metrics: ModelMetrics
    limit: int
    #: The last record of the journal that was run, by slot.
    applied: NDArray[np.int64]
    progress: Progress
    watchers: tuple[Watcher, ...] = ()
    #: Counts of removed sensors, so that the sums over all never fall.
    gone: Counter[str] = field(default_factory=Counter)
    #: See :func:`streamer.sensors.layout.state_layout`.
    state_layout: str = field(init=False)

    def __post_init__(self) -> None:
        self.state_layout = state_layout(self.model.manifest, self.layout)

    def tracks(self, slots: Slots) -> Slots:
        """Rows of ``track``, [N * K]: of each slot, one for each target."""
        count = len(self.layout.chosen)
        if count == 1:
            return slots
        rows: Slots = (slots[:, None] * count + np.arange(count)).ravel()
        return rows

    @property
    def bytes_per_slot(self) -> int:
        targets = len(self.layout.chosen)
        return self.arena.bytes_per_slot + targets * self.track.bytes_per_slot + self.latest.bytes_per_slot

    def clear(self, slot: int) -> None:
        self.gone.update({name: int(counts[slot]) for name, counts in self.timelines.counts.items()})
        self.gone["readings"] += int(self.latest.readings[slot])
        self.arena.renew(slot)
        self.timelines.clear(slot)
        self.latest.clear(slot)
        self.history.clear(slot)
        for row in self.tracks(np.array([slot])).tolist():
            self.track.clear(row)
        self.applied[slot] = 0
        self.progress.clear(slot)

    def release(self, slot: int) -> None:
        """Clear the slot and free it."""
        self.clear(slot)
        self.directory.release(slot)

    def read(self, slot: int) -> Parts:
        """A copy of a slot's saved state."""
        tracks = {_track(at): self.track.read(row) for at, row in enumerate(self.tracks(np.array([slot])).tolist())}
        parts = {
            "state": self.arena.read(self.arena.slot(slot)),
            "clock": self.timelines.read(slot),
            "latest": self.latest.read(slot),
            "progress": self.progress.read(slot),
        }
        return parts | tracks

    def write(self, slot: int, parts: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
        """Raises ``ValueError`` or ``KeyError`` for parts of another model; then call :meth:`clear`."""
        self.arena.write(self.arena.slot(slot), parts["state"])
        for at, row in enumerate(self.tracks(np.array([slot])).tolist()):
            self.track.write(row, parts[_track(at)])
        self.latest.write(slot, parts["latest"])
        self.timelines.write(slot, parts["clock"])
        if (saved := parts.get("progress")) is not None:  # older ones were saved between two records
            self.progress.write(slot, saved)

    def ran(
        self,
        streams: Slots,
        first: NDArray[np.intp],
        at: NDArray[np.intp],
        seq: NDArray[np.int64],
        last: NDArray[np.bool_],
    ) -> None:
        """Readings ``first`` to ``at`` of each stream were run. Columns, grouped by stream: ``seq``, the record that
        holds a reading, and ``last``, whether it is the stream's last reading there."""
        ends = np.flatnonzero(last & (np.arange(len(last)) < np.repeat(at, np.diff([*first.tolist(), len(last)]))))
        final = np.full(len(streams), -1)
        final[np.searchsorted(first, ends, side="right") - 1] = ends  # ascending: the last one stays
        ended = final >= 0
        self.applied[streams[ended]] = seq[final[ended]]
        self.progress.ran[streams] = np.where(ended, at - 1 - final, self.progress.ran[streams] + at - first)


def _track(target: int) -> str:
    return f"track{target}" if target else "track"
