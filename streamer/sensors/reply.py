"""Collects the results of one batch from all lanes, in the order of the batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.sensors.columns import Forecasts, ReadingBatch, StepResult
from streamer.sensors.commit import promise
from streamer.sensors.layout import RowLayout

__all__ = ["Reply", "gather"]


class Reply:
    """``forecasts``: a future, done when every part is there. Readings that were left out (duplicates, late), and those
    whose run failed, have no forecast, but are listed. ``whole``: False asks only for these lists."""

    def __init__(self, layout: RowLayout, batch: ReadingBatch, whole: bool = True) -> None:
        self.forecasts: Future[Forecasts] = promise()
        self._layout, self._batch, self._whole = layout, batch, whole
        self._lock = threading.Lock()
        self._left = 0
        self._parts: list[tuple[NDArray[np.intp], StepResult]] = []
        self._failed: list[int] = []
        self._left_out: list[tuple[int, bool]] = []

    def expect(self, pieces: int) -> None:
        """Set how many pieces will finish. Call it before any does."""
        self._left = pieces
        if not pieces:
            self._finish()

    def part(self, at: NDArray[np.intp], result: StepResult | None) -> None:
        """Called by lanes. ``at``: indexes of the piece's readings in the batch. ``None``: the piece has ended."""
        with self._lock:
            if result is not None:
                if self._whole:
                    self._parts.append((at[result.at], result))
                return
            self._left -= 1
            if self._left:
                return
        self._finish()

    def fail(self, at: NDArray[np.intp], rows: NDArray[np.intp]) -> None:
        """Called by lanes before the piece ends: these readings of it failed."""
        with self._lock:
            self._failed += at[rows].tolist()

    def leave(self, at: NDArray[np.intp], rows: tuple[NDArray[np.intp], NDArray[np.bool_]]) -> None:
        """Called by lanes before the piece ends: these readings of it were left out, as late or as duplicates."""
        which, late = rows
        with self._lock:
            self._left_out += zip(at[which].tolist(), late.tolist(), strict=True)

    def give_up(self, error: Exception) -> None:
        """End the wait with an error: the remaining readings are not run by this process."""
        with self._lock:
            if not self.forecasts.done():
                self.forecasts.set_exception(error)

    def _finish(self) -> None:
        try:
            at = np.concatenate([np.zeros(0, np.intp), *(at for at, _ in self._parts)])
            order = np.argsort(at)
            names = [self._batch.names[row] for row in at[order].tolist()]
            found = gather(names, [result for _, result in self._parts], self._layout, order)
            failed = [(self._batch.names[row], float(self._batch.times[row])) for row in sorted(self._failed)]
            left = sorted(self._left_out)
            late, duplicates = (
                [(self._batch.names[row], float(self._batch.times[row])) for row, was_late in left if was_late == kind]
                for kind in (True, False)
            )
            whole = replace(found, failed=failed, late=late, duplicates=duplicates)
        except Exception as error:
            self.give_up(error)
        else:
            with self._lock:
                if not self.forecasts.done():
                    self.forecasts.set_result(whole)


def gather(names: Sequence[str], parts: Sequence[StepResult], layout: RowLayout, order: NDArray[np.intp]) -> Forecasts:
    """Rows of ``parts``, concatenated, in the given ``order``. ``names``: those of the result."""

    def column(name: str, *shape: int, dtype: Any) -> NDArray[Any]:
        found = np.concatenate([np.zeros((0, *shape), dtype), *(getattr(result, name) for result in parts)])
        return found[order]

    each = layout.each
    return Forecasts(
        names,
        column("times", dtype=np.float64),
        column("values", *each, dtype=np.float64),
        column("steps", dtype=np.float64),
        column("breaks", dtype=np.uint8),
        layout.levels,
        column("quantiles", *each, layout.horizon, len(layout.levels), dtype=np.float64),
        column("anomalies", *each, dtype=np.float32),
        column("drifts", *each, dtype=np.float32),
        column("known", *each, dtype=np.bool_),
        layout.targets,
    )
