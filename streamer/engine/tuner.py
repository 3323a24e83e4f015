"""Measures the best batch size, and how long a chunk may wait for one, per model and machine at load; cached in a file.

On a CPU the gain differs too much for a rule of thumb: batching makes an LSTM of 4x512 3.6 times as fast, a causal
WaveNet 1.1 times. Batch sizes are increased while the time per stream still falls; every size in use is run at least
once, so that no stream is delayed by a first run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import thread_time
from typing import Any

from streamer.engine.batch import rungs
from streamer.engine.model import Model

__all__ = ["Tuning", "best_batch", "company", "tune"]

log = logging.getLogger(__name__)

#: A larger batch size must reduce the time per stream by this share to be worth its longer run.
GAIN = 0.03
#: CPU seconds that a batch costs beside its run, whatever its size: gathering, scattering, bookkeeping, and
#: the decoder's NumPy calls (0.3 ms greedy, 2 ms a beam). More weight for small models.
OVERHEAD = 500e-6
REPEATS = 5
RUNG_SECONDS = 0.02
MAX_REMEMBERED = 64
MAX_CACHE_BYTES = 2**20


#: Waiting is allowed only if batching saves at least this share of the time of a run alone.
SAVES = 0.15
#: Of the batch sizes whose time per stream is within this share of the best one's, the smallest is taken.
NEAR = 0.1
#: Seconds that a chunk waits to be batched at most, however much that saves.
LONGEST_WAIT = 0.015


@dataclass(frozen=True, slots=True)
class Tuning:
    """``batch``: the largest to run. ``pays``: the batch for which a chunk may wait ``wait`` seconds."""

    batch: int
    pays: int = 1
    wait: float = 0.0


def tune(model: Model, limit: int, cache: Path | None = None) -> Tuning:
    """Measure for batches of at most ``limit``; all sizes up to the chosen one are warm afterwards. An unreadable cache
    is ignored."""
    limit = min(limit, model.manifest.max_batch)
    key = f"{model.digest} {limit} {_machine()}"
    remembered = _read(cache)
    found = _parsed(remembered.get(key), limit)
    if found is not None:
        for rung in rungs(found.batch):
            _time(model, rung, 0, 0.0)
        return found
    ladder = rungs(limit)
    costs: list[float] = []
    for rung in ladder:
        costs.append((_time(model, rung, REPEATS, RUNG_SECONDS) + OVERHEAD) / rung)
        if len(costs) > 2 and min(costs[:-2]) <= min(costs[-2:]) * (1 + GAIN):
            break  # two rungs without gain: climbing on would only cost start-up time
    best = best_batch(ladder, costs)
    for rung in rungs(best):
        if rung not in ladder[: len(costs)]:
            _time(model, rung, 0, 0.0)
    tuning = Tuning(best, *company(ladder, costs, best))
    log.info("batch measured", extra={"model": model.manifest.name, "tried": len(costs), **asdict(tuning)})
    _write(cache, remembered, key, asdict(tuning))
    return tuning


def company(ladder: list[int], costs: list[float], best: int) -> tuple[int, float]:
    """The batch size for which waiting pays, and for how many seconds: no longer than the time that it saves for all
    its streams. (1, 0) if it saves little."""
    lowest = costs[ladder.index(best)]
    pays = next(i for i, cost in enumerate(costs) if cost <= lowest * (1 + NEAR))
    saved = costs[0] - costs[pays]
    if saved < SAVES * costs[0]:
        return 1, 0.0
    return ladder[pays], min(saved * ladder[pays], LONGEST_WAIT)


def best_batch(ladder: list[int], costs: list[float]) -> int:
    """The batch size beyond which none is better by more than :data:`GAIN`. ``costs``: seconds per stream by size."""
    best = 0
    for i in range(1, len(costs)):
        if costs[i] < costs[best] * (1 - GAIN):
            best = i
    return ladder[best]


def _time(model: Model, batch: int, repeats: int, budget: float) -> float:
    """The shortest of some runs after a warm-up run, in CPU seconds of this thread, which exclude other processes'
    work."""
    feeds = model.zero_feeds(batch)
    model.run(feeds)
    times: list[float] = []
    while len(times) < repeats and (len(times) < 2 or sum(times) < budget):
        start = thread_time()
        model.run(feeds)
        times.append(thread_time() - start)
    return min(times, default=0.0)


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{platform.machine()} {name} {os.cpu_count()} ort-{version('onnxruntime')}"


def _read(cache: Path | None) -> dict[str, object]:
    if cache is None:
        return {}
    try:
        with cache.open("rb") as file:
            found = json.loads(file.read(MAX_CACHE_BYTES))
        if not isinstance(found, dict):
            raise ValueError("it is no table")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:  # the file may have any content, and any depth
        extra = {"path": str(cache), "error": str(error)[:200]}
        log.warning("the cache of measured batch sizes is unreadable, measuring again", extra=extra)
        return {}


def _parsed(found: object, limit: int) -> Tuning | None:
    """The cached tuning, if it is valid."""
    if not isinstance(found, dict):
        return None
    try:
        tuning = Tuning(**found)
        whole = isinstance(tuning.batch, int) and isinstance(tuning.pays, int)
        fits = whole and 1 <= tuning.pays <= tuning.batch <= limit and 0 <= tuning.wait <= LONGEST_WAIT
    except TypeError:
        return None
    return tuning if fits else None


def _write(cache: Path | None, remembered: dict[str, object], key: str, best: dict[str, Any]) -> None:
    if cache is None:
        return
    kept = dict(list(remembered.items())[-MAX_REMEMBERED + 1 :]) | {key: best}
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f"{cache.name}.{os.getpid()}")
        partial.write_text(json.dumps(kept, indent=1), "utf-8")
        partial.replace(cache)
    except OSError as error:
        log.warning("measured batch sizes can't be remembered", extra={"error": str(error)})
