"""``/v2/models/{model}/stats``: requests answered over KServe v2, and the engine's runs for all protocols."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.metrics import MetricWrapperBase

    from streamer.metrics import ModelMetrics

__all__ = ["Requests", "document"]


@dataclass(slots=True)
class Requests:
    """Request statistics of one model. Times in nanoseconds; ``last``: milliseconds since the epoch."""

    good: int = 0
    good_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    last: int = 0

    def count(self, good: bool, ns: int) -> None:
        if good:
            self.good, self.good_ns = self.good + 1, self.good_ns + ns
            self.last = time.time_ns() // 1_000_000
        else:
            self.failed, self.failed_ns = self.failed + 1, self.failed_ns + ns


def document(name: str, version: str, requests: Requests, metrics: ModelMetrics) -> dict[str, Any]:
    """The document. ``inference_count``: chunks run; ``execution_count``: batches; their quotient is the mean batch."""
    batches = int(_sample(metrics.batch_size, "_count"))
    run, decode = _sample(metrics.run_seconds, "_sum"), _sample(metrics.decode_seconds, "_sum")
    busy = _sample(metrics.busy_seconds, "_total")
    return {
        "name": name,
        "version": version,
        "last_inference": requests.last,
        "inference_count": int(_sample(metrics.chunks, "_total")),
        "execution_count": batches,
        "inference_stats": {
            "success": {"count": requests.good, "ns": requests.good_ns},
            "fail": {"count": requests.failed, "ns": requests.failed_ns},
            "queue": {"count": 0, "ns": 0},
            "compute_input": {"count": batches, "ns": round(max(busy - run - decode, 0.0) * 1e9)},
            "compute_infer": {"count": batches, "ns": round(run * 1e9)},
            "compute_output": {"count": batches, "ns": round(decode * 1e9)},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
        "memory_usage": [],
    }


def _sample(child: MetricWrapperBase, suffix: str) -> float:
    """The value of one model's metric, without computing the rest of the metrics page."""
    return next(s.value for metric in child.collect() for s in metric.samples if s.name.endswith(suffix))
