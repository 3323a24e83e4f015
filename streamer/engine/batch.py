"""The batch runner: gather, run, isolate failing rows, scatter. Used by the lanes of streams and of sensors.

A failing row does not affect the others. When a run fails, its batch is halved until the failing rows are alone: the
others succeed, and each failing row has its own error and keeps its previous state. A row whose slot has another owner
when the run ends is late: its new state and its outputs are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.model import Model

__all__ = ["BatchResult", "BatchRunner", "error_line", "rungs"]

Arrays = dict[str, NDArray[Any]]
Indexes = NDArray[np.intp]


def rungs(limit: int) -> list[int]:
    """The batch sizes in use, ascending: powers of two up to ``limit``, and ``limit``. Other sizes are padded."""
    return sorted({limit, *(2**i for i in range(limit.bit_length()) if 2**i <= limit)})


def error_line(error: Exception) -> str:
    """The first line of what went wrong, for a client and the log."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """``outputs``: arrays by name, of which the first N rows are the batch's; only rows with ``good`` [N] are valid.
    ``errors``: by row that failed. ``late``: number of rows for former owners. ``seconds``: duration of the run."""

    outputs: Arrays
    good: NDArray[np.bool_]
    errors: Mapping[int, Exception]
    late: int
    seconds: float


class BatchRunner:
    """For one thread, since buffers are reused. ``limit``: most rows of a batch."""

    def __init__(self, model: Model, arena: Arena, limit: int) -> None:
        self._model, self._arena, self._limit = model, arena, limit
        manifest = model.manifest
        self._inputs = [spec.name for spec in manifest.inputs]
        self._shapes = {o.name: (o.shape, o.dtype) for o in manifest.outputs}
        self._shapes |= {s.out: (s.shape, s.dtype) for s in manifest.states}
        self._ladder = rungs(limit)
        self._buffers = {rung: model.zero_feeds(rung) for rung in self._ladder}
        self._row_views = {
            rung: [{name: feeds[name][row] for name in self._inputs} for row in range(rung)]
            for rung, feeds in self._buffers.items()
        }

    def rows(self, count: int) -> list[Arrays]:
        """Buffers for at most ``count`` chunks, to be filled before :meth:`run_rows`: for each chunk its row of every
        stream input."""
        return self._row_views[self._rung(count)]

    def run_rows(self, count: int, indexes: Indexes, generations: NDArray[np.int64]) -> BatchResult:
        """Run the chunks in the first N rows of ``rows(count)``, 1 <= N <= ``count``. ``indexes`` [N] and
        ``generations`` [N] are their slots, all different."""
        feeds = self._buffers[self._rung(count)]
        if len(indexes) == len(feeds[self._inputs[0]]) and (views := self._arena.views(indexes)) is not None:
            return self._run({**feeds, **views}, indexes, generations)
        self._gather(feeds, indexes)
        return self._run(feeds, indexes, generations)

    def run(
        self, indexes: Indexes, generations: NDArray[np.int64], inputs: Arrays
    ) -> Iterator[tuple[slice, BatchResult]]:
        """Run one chunk of any number N of different streams, ``inputs`` [N, *chunk_shape] by name, in as many batches
        as needed; yields slices of N with their results. Consecutive slots are run without a copy."""
        for begin in range(0, len(indexes), self._limit):
            part = slice(begin, min(begin + self._limit, len(indexes)))
            yield part, self._run_part(indexes[part], generations[part], {n: a[part] for n, a in inputs.items()})

    def _run_part(self, indexes: Indexes, generations: NDArray[np.int64], inputs: Arrays) -> BatchResult:
        n = len(indexes)
        views = self._arena.views(indexes) if n in self._buffers else None
        if views is not None:
            return self._run({**inputs, **views}, indexes, generations)
        feeds = self._buffers[self._rung(n)]
        for name, array in inputs.items():
            feeds[name][:n] = array
        self._gather(feeds, indexes)
        return self._run(feeds, indexes, generations)

    def _gather(self, feeds: Arrays, indexes: Indexes) -> None:
        n = len(indexes)
        self._arena.gather(indexes, feeds)
        if n < len(feeds[self._inputs[0]]):
            for array in feeds.values():
                array[n:] = 0

    def _run(self, feeds: Arrays, indexes: Indexes, generations: NDArray[np.int64]) -> BatchResult:
        n = len(indexes)
        errors: dict[int, Exception] = {}
        start = perf_counter()
        try:
            outputs = self._model.run(feeds)
        except Exception as error:  # any error belongs to the rows that cause it
            outputs = self._run_apart(feeds, n, error, errors)
        seconds = perf_counter() - start
        good = self._arena.current_rows(indexes, generations)
        late = n - int(np.count_nonzero(good))
        if errors:
            failed = np.fromiter(errors, np.intp, len(errors))
            late -= int((~good[failed]).sum())
            good[failed] = False
        if not late and not errors:
            self._arena.scatter(indexes, outputs)
        elif np.count_nonzero(good):
            rows = np.flatnonzero(good)
            states = {pair.out: outputs[pair.out][rows] for pair in self._model.manifest.states}
            self._arena.scatter(indexes[rows], states)
        return BatchResult(outputs, good, errors, late, seconds)

    def _run_apart(self, feeds: Arrays, n: int, error: Exception, errors: dict[int, Exception]) -> Arrays:
        """Run the first ``n`` rows, halving failing batches recursively; rows that fail alone go to ``errors``."""
        outputs = {name: np.zeros((n, *shape), dtype) for name, (shape, dtype) in self._shapes.items()}
        if len(feeds[self._inputs[0]]) == 1:
            errors[0] = error
            return outputs

        def halves(begin: int, end: int) -> None:
            middle = (begin + end + 1) // 2
            for first, behind in ((begin, middle), (middle, end)):
                if first == behind:
                    continue
                try:
                    found = self._model.run({name: array[first:behind] for name, array in feeds.items()})
                except Exception as own:
                    if behind - first == 1:
                        errors[first] = own
                    else:
                        halves(first, behind)
                else:
                    for name, array in found.items():
                        outputs[name][first:behind] = array

        halves(0, n)
        return outputs

    def _rung(self, count: int) -> int:
        return next(rung for rung in self._ladder if rung >= count)
