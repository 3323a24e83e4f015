"""Runs the model on readings of many streams: in batches, each with its streams' states out of the arena and back."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.engine.arena import Arena
from streamer.engine.engine import rungs
from streamer.engine.model import Model
from streamer.metrics import ModelMetrics

__all__ = ["Found", "Runner"]

log = logging.getLogger(__name__)

Slots = NDArray[np.intp]
Feeds = dict[str, NDArray[Any]]


class Found(NamedTuple):
    """``good`` bool [N]: those that were run; nothing is said of the others, whose streams begin anew. ``quantiles``
    [N, H, Q], ``anomalies`` and ``drifts`` [N], float32; ones where the model says neither."""

    good: NDArray[np.bool_]
    quantiles: NDArray[np.float32]
    anomalies: NDArray[np.float32]
    drifts: NDArray[np.float32]


class Runner:
    """Of one thread: its buffers are used again. ``limit``: streams in a batch."""

    def __init__(self, model: Model, arena: Arena, metrics: ModelMetrics, limit: int) -> None:
        self._model, self._arena, self._metrics, self._limit = model, arena, metrics, limit
        spec = model.manifest.input
        self._input = spec.name
        self._buffers: dict[int, Feeds] = {
            rung: {spec.name: np.zeros((rung, *spec.chunk_shape), spec.dtype), **model.zero_state(rung)}
            for rung in rungs(limit)
        }
        shapes = {output.name: output.shape for output in model.manifest.outputs}
        self._quantiles = shapes["quantiles"][1:]
        self._says = [name for name in ("anomaly", "drift") if name in shapes]

    def __call__(self, slots: Slots, readings: NDArray[np.float32]) -> Found:
        """One step of streams that are all different, ``readings`` [N, *chunk]."""
        n = len(slots)
        good = np.ones(n, np.bool_)
        quantiles = np.empty((n, *self._quantiles), np.float32)
        said = {name: np.ones(n, np.float32) for name in ("anomaly", "drift")}
        for begin in range(0, n, self._limit):
            part = slice(begin, begin + self._limit)
            outputs = self._batch(slots[part], readings[part])
            if outputs is None:
                good[part] = False
                continue
            rows = len(slots[part])
            quantiles[part] = outputs["quantiles"][:rows, 0]
            for name in self._says:
                said[name][part] = outputs[name][:rows, 0]
        return Found(good, quantiles, said["anomaly"], said["drift"])

    def _batch(self, slots: Slots, readings: NDArray[np.float32]) -> Feeds | None:
        """Outputs, of at least these rows. ``None``: it failed."""
        n = len(slots)
        feeds = self._buffers[next(rung for rung in self._buffers if rung >= n)]
        views = self._arena.views(slots) if n in self._buffers else None
        if views is not None:
            feeds = {self._input: readings, **views}
        else:
            feeds[self._input][:n] = readings
            self._arena.gather(slots, feeds)
            for array in feeds.values():
                array[n:] = 0
        start = perf_counter()
        try:
            outputs = self._model.run(feeds)
        except Exception as error:
            self._failed(slots, error)
            return None
        self._metrics.run_seconds.observe(perf_counter() - start)
        self._metrics.batch_size.observe(n)
        self._arena.scatter(slots, outputs)
        return outputs

    def _failed(self, slots: Slots, error: Exception) -> None:
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
        log.error("a batch of readings failed: its streams begin anew", extra={"streams": len(slots), "error": message})
        self._metrics.failed_batches.inc()
        for slot in slots.tolist():
            self._arena.clear(slot)
