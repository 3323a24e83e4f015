"""The state of the engine as JSON for the page ``/engine``: those families of the metrics page that it shows.

Families of sensors' forecasts are left out: they are thousands of series.
"""

from __future__ import annotations

import json
import math
from typing import Any

from prometheus_client import CollectorRegistry

from streamer.refusals import REFUSED, refused

__all__ = ["FAMILIES", "engine_page"]

#: Without the prefix ``streamer_``; counters as the metrics page has them.
FAMILIES = (
    # of each model
    "lanes", "max_batch", "batch_wait_seconds", "capacity", "load", "lag_max_seconds", "buffered_seconds",
    "buffered_rows", "realtime_factor", "state_bytes", "state_bytes_bound", "sessions", "steps_total", "chunks_total",
    "rows_total", "busy_seconds_total", "failed_batches_total", "dropped_seconds_total", "dropped_rows_total",
    "dropped_events_total", "sessions_opened_total",
    # of the daemon
    "connections", "http_connections", "requests", "uploads", "loop_late_seconds", "sensors", "waiting_readings",
    "reading_wait_seconds", "oldest_reading_seconds", "readings_total", "subscriptions", "disk_trouble",
    "dropped_forecasts_total", "store_errors_total",
    # refusals, by reason
    *(f"{name}_total" for name in REFUSED),
    "build_info",
)  # fmt: skip
#: Samples of histograms.
HISTOGRAMS = ("batch_size", "lag_seconds", "run_seconds")
PARTS = ("bucket", "sum", "count")


def engine_page(registry: CollectorRegistry) -> bytes:
    """``{"metrics": {NAME: [{"labels": {...}, "value": x}, ...]}, "histograms": {NAME: [{"labels", "buckets":
    {"0.1": 3, ...}, "sum", "count"}]}, "refused": [{"what": "streams refused", "reason": "overload", "count": 3},
    ...]}``. To be called in a thread."""
    names = [f"streamer_{name}" for name in FAMILIES]
    names += [f"streamer_{name}_{part}" for name in HISTOGRAMS for part in PARTS]
    metrics: dict[str, list[dict[str, Any]]] = {name: [] for name in FAMILIES}
    histograms: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in HISTOGRAMS}
    for family in registry.restricted_registry(names).collect():
        for sample in family.samples:
            name = sample.name.removeprefix("streamer_")
            if name in metrics:
                metrics[name].append({"labels": sample.labels, "value": _number(sample.value)})
                continue
            whole, _, part = name.rpartition("_")
            if whole in histograms and part in PARTS:
                model = sample.labels.get("model", "")
                found = histograms[whole].setdefault(model, {"labels": {"model": model}, "buckets": {}})
                if part == "bucket":
                    found["buckets"][sample.labels["le"]] = sample.value
                else:
                    found[part] = _number(sample.value)
    shown = {name: list(by_model.values()) for name, by_model in histograms.items()}
    counted = [
        (name, sample["labels"]["reason"], sample["value"] or 0)
        for name in REFUSED
        for sample in metrics[f"{name}_total"]
    ]
    gone = [{"what": REFUSED[name], "reason": why, "count": count} for (name, why), count in refused(counted).items()]
    return json.dumps({"metrics": metrics, "histograms": shown, "refused": gone}, allow_nan=False).encode()


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
