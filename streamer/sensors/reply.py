"""Collects what lanes say of one batch, in the batch's own order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import Batch, Told

if TYPE_CHECKING:
    from streamer.sensors.ingest import Fleet
    from streamer.sensors.worker import Ran

__all__ = ["Teller", "told"]


class Teller:
    """``told``: when every part is there. Readings that were left out (duplicates, late) are not in it."""

    def __init__(self, fleet: Fleet, batch: Batch) -> None:
        self.told: Future[Told] = Future()
        self._fleet, self._batch = fleet, batch
        self._lock = threading.Lock()
        self._left = 0
        self._parts: list[tuple[NDArray[np.intp], Ran]] = []

    def expect(self, pieces: int) -> None:
        """So many pieces will end; before the first does."""
        self._left = pieces
        if not pieces:
            self._finish()

    def part(self, at: NDArray[np.intp], ran: Ran | None) -> None:
        """Called by lanes. ``at``: where the piece's readings stand in the batch."""
        with self._lock:
            if ran is not None:
                self._parts.append((at[ran.at], ran))
                return
            self._left -= 1
            if self._left:
                return
        self._finish()

    def _finish(self) -> None:
        at = np.concatenate([np.zeros(0, np.intp), *(at for at, _ in self._parts)])
        order = np.argsort(at)
        names = [self._batch.names[row] for row in at[order].tolist()]
        self.told.set_result(told(names, [ran for _, ran in self._parts], self._fleet, order))


def told(names: Sequence[str], parts: Sequence[Ran], fleet: Fleet, order: NDArray[np.intp] | None = None) -> Told:
    """``parts`` as one, in the given order. ``names``: as they stand in the result."""

    def column(name: str, *shape: int, dtype: Any) -> NDArray[Any]:
        found = np.concatenate([np.zeros((0, *shape), dtype), *(getattr(ran, name) for ran in parts)])
        return found if order is None else found[order]

    return Told(
        names,
        column("times", dtype=np.float64),
        column("values", dtype=np.float64),
        column("steps", dtype=np.float64),
        column("breaks", dtype=np.uint8),
        fleet.levels,
        column("quantiles", fleet.horizon, len(fleet.levels), dtype=np.float32),
        column("anomalies", dtype=np.float32),
        column("drifts", dtype=np.float32),
        column("known", dtype=np.bool_),
    )
