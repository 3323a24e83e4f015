"""What ``/v2/models/{model}/stats`` tells: requests as they were answered here, runs of the model as the engine counted
them (of every road to it, not only this one)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Requests", "document"]

#: A sample of the metrics page by name, for one model; ``None`` where there is none.
Sample = Callable[[str], float | None]


@dataclass(slots=True)
class Requests:
    """Requests of one model. Times in nanoseconds; ``last``: milliseconds since the epoch."""

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


def document(name: str, version: str, requests: Requests, sample: Sample) -> dict[str, Any]:
    """``inference_count``: chunks run; ``execution_count``: batches; their quotient is the mean batch."""
    batches = int(sample("streamer_batch_size_count") or 0)
    run, decode, busy = (
        sample(f"streamer_{part}") or 0.0 for part in ("run_seconds_sum", "decode_seconds_sum", "busy_seconds_total")
    )
    return {
        "name": name,
        "version": version,
        "last_inference": requests.last,
        "inference_count": int(sample("streamer_chunks_total") or 0),
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
