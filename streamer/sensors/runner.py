"""Runs readings of many streams by the batch runner, and returns the model's outputs for each."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.batch import BatchResult, BatchRunner, error_line
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics

__all__ = ["RunResult", "Runner"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]


class RunResult(NamedTuple):
    """``good`` bool [N]: readings that were run; the others have no result. ``failed`` bool [N]: readings whose run
    failed; the rest of the others were late. ``quantiles`` [N, H, Q] float64, ``anomalies`` and ``drifts`` [N] float32,
    with several targets [N, K, ...]; ones if the model does not compute them."""

    good: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    quantiles: NDArray[np.float64]
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]


class Runner:
    """For one thread. ``limit``: streams in a batch. Only a stream whose run fails restarts from an empty state."""

    def __init__(self, model: Model, arena: Arena, metrics: ModelMetrics, limit: int) -> None:
        self._arena, self._metrics = arena, metrics
        self._batches = BatchRunner(model, arena, limit)
        self._input = model.manifest.input.name
        self.dtype = np.dtype(model.manifest.input.dtype)
        shapes = {output.name: output.shape for output in model.manifest.outputs}
        self._quantiles = shapes["quantiles"][1:]
        self._each = self._quantiles[:-2]
        self._says = [name for name in ("anomaly", "drift") if name in shapes]

    def __call__(self, slots: Slots, generations: NDArray[np.int64], readings: NDArray[np.floating[Any]]) -> RunResult:
        """One step of different streams, ``readings`` [N, *chunk]. ``generations``: of the slots when the readings were
        taken; readings of a slot's former owner are late: they are dropped and counted."""
        n = len(slots)
        good, failed = np.ones(n, np.bool_), np.zeros(n, np.bool_)
        quantiles = np.empty((n, *self._quantiles))
        said = {name: np.ones((n, *self._each), np.float32) for name in ("anomaly", "drift")}
        for part, result in self._batches.run(slots, generations, {self._input: readings}):
            rows = part.stop - part.start
            good[part] = result.good
            quantiles[part] = result.outputs["quantiles"][:rows, 0]
            for name in self._says:
                said[name][part] = result.outputs[name][:rows, 0]
            self._metrics.run_seconds.observe(result.seconds)
            self._metrics.batch_size.observe(rows)
            if result.late:
                self._metrics.late_results.inc(result.late)
            if result.errors:
                failed[part.start + np.array(list(result.errors))] = True
                self._failed(slots[part], result)
        return RunResult(good, failed, quantiles, said["anomaly"], said["drift"])

    def _failed(self, slots: Slots, result: BatchResult) -> None:
        first = error_line(next(iter(result.errors.values())))
        log.error("readings failed: their streams begin again", extra={"streams": len(result.errors), "error": first})
        self._metrics.failed_batches.inc()
        for row in result.errors:
            self._arena.clear(self._arena.slot(int(slots[row])))
