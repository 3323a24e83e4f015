"""How large a batch pays: measured per model and machine at load, remembered in a cache file.

On a CPU this differs by more than any rule of thumb: an LSTM of 4x512 gains 3.6 times from batching, a causal WaveNet
1.1 times. The ladder of batch sizes is climbed while the time per stream still falls; every rung that will be used is
run once at least, so that no stream pays for a first run.
"""

from __future__ import annotations

import json
import logging
import os
import platform
from pathlib import Path
from time import thread_time

import onnxruntime as ort

from streamer.engine.batch import rungs
from streamer.engine.model import Model

__all__ = ["best_batch", "tune"]

log = logging.getLogger(__name__)

#: A rung must make the time per stream this much shorter to be worth its longer wait.
GAIN = 0.03
#: What a batch costs beside its run however many are in it, in CPU seconds: gathering, scattering, bookkeeping, and
#: the decoder's NumPy calls (0.3 ms greedy, 2 ms a beam). More weight for small models.
OVERHEAD = 500e-6
REPEATS = 5
RUNG_SECONDS = 0.02
MAX_REMEMBERED = 64


def tune(model: Model, limit: int, cache: Path | None = None) -> int:
    """The largest batch to run, at most ``limit``; its rungs are warm afterwards. A useless cache is no error."""
    limit = min(limit, model.manifest.max_batch)
    key = f"{model.digest} {limit} {_machine()}"
    remembered = _read(cache)
    found = remembered.get(key)
    if isinstance(found, int) and 1 <= found <= limit:
        for rung in rungs(found):
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
    log.info("batch measured", extra={"model": model.manifest.name, "max_batch": best, "tried": len(costs)})
    _write(cache, remembered, key, best)
    return best


def best_batch(ladder: list[int], costs: list[float]) -> int:
    """The rung beyond which none is better by more than :data:`GAIN`. ``costs``: seconds per stream, rung by rung."""
    best = 0
    for i in range(1, len(costs)):
        if costs[i] < costs[best] * (1 - GAIN):
            best = i
    return ladder[best]


def _time(model: Model, batch: int, repeats: int, budget: float) -> float:
    """Shortest of some runs after one that warms up, in CPU seconds of this thread: others' work must not decide."""
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
    return f"{platform.machine()} {name} {os.cpu_count()} ort-{ort.__version__}"


def _read(cache: Path | None) -> dict[str, object]:
    if cache is None:
        return {}
    try:
        found = json.loads(cache.read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("the cache of measured batch sizes is unreadable, measuring anew", extra={"error": str(error)})
        return {}


def _write(cache: Path | None, remembered: dict[str, object], key: str, best: int) -> None:
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
