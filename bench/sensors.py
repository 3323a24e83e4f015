"""Ten thousand sensors in one daemon: readings per second, and their share of the bare ONNX Runtime loop.

Fleet and bare loop. Bare: one thread per core; each runs the model on one fixed batch, of the fleet's size, and passes
the new states to the next call without a copy. Fleet: in this process, everything between a batch of readings and
their forecasts, without the disk: names to slots, clocks, gathering and scattering states, scoring, calibrating and
storing forecasts. Both get the same readings, a daily wave with noise and another level for each stream. They run in
turns, so that other work on the machine affects both alike; the report has the median of the turns' ratios, in CPU time
(of the whole process, all threads) and by the clock. The fleet is fed in two modes: all streams together, as a scraper
or a gateway sends; and one random half after the other, so that the slots of a batch are not consecutive. Warm-up turns
do not count.

Ways: the same readings through a daemon in a separate process, see ``bench/ways.py``.

Others: microseconds of CPU, on one thread, to learn one reading and forecast all steps ahead: river's Holt-Winters and
SNARIMAX of one stream; and our network without its state: the last 96 readings from a zero state for each forecast. The
graph takes one reading a call (its time axis is fixed), so that is 96 calls, with the fleet's batch size. Ours: the
fleet's CPU time, and that of one stream alone, with a batch of one.
"""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from bench import ways
from bench.report import finish
from streamer.engine.catalogue import resolve
from streamer.engine.denormals import flush_denormals
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper
from streamer.metrics import Metrics
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.open import BATCH, open_fleet
from streamer.sensors.timeline import phases

EXAMPLES = """examples:
  python -m bench sensors                                   both shipped forecasters, everything (some 10 minutes)
  python -m bench sensors --model forecast-online --part fleet --rounds 9
  python -m bench sensors --streams 1000 --part ways --json | tail -n 1
"""
MODELS = ("forecast-online", "forecast-universal")
PARTS = ("fleet", "ways", "others")
STEP = 60.0
WARM = 2
#: Window of a model without state, in readings.
WINDOW = 96
#: Readings on which the others are timed, after readings that they need before they can forecast.
TIMED, BEFORE = 50, 100

Values = NDArray[np.float64]


class Cost(NamedTuple):
    """Seconds per reading."""

    cpu: float
    wall: float


def waves(rounds: int, streams: int, seed: int = 0) -> Values:
    """Readings [rounds, streams]: daily waves with noise."""
    rng = np.random.default_rng(seed)
    phase, level = rng.random(streams), rng.normal(20, 10, streams)
    day = 2 * np.pi * (np.arange(rounds)[:, None] * STEP / 86400 + phase)
    return level + 3 * np.sin(day) + 0.3 * rng.standard_normal((rounds, streams))


def timed(work: Callable[[], None], readings: int) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost((time.process_time() - cpu) / readings, (time.perf_counter() - wall) / readings)


class Bare:
    """Threads that run the model, each with its own states."""

    def __init__(self, model: Model, batch: int, threads: int) -> None:
        self._batch, self._dtype = batch, model.manifest.input.dtype
        self._steppers = [Stepper(model, batch) for _ in range(threads)]

    def turn(self, values: Values, at: float) -> Cost:
        """Run all of ``values`` in batches; the last one is padded."""
        threads = len(self._steppers)
        calls = -(-len(values) // (self._batch * threads))
        rows = np.ones((threads, calls, self._batch, 1, 4), self._dtype)
        rows[..., 0] = np.resize(values, rows.shape[:-1])
        rows[..., 2], rows[..., 3] = phases(at)
        lanes = [threading.Thread(target=self._loop, args=(lane, rows[lane])) for lane in range(threads)]

        def run() -> None:
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()

        return timed(run, calls * self._batch * threads)

    def _loop(self, lane: int, rows: NDArray[np.float32]) -> None:
        flush_denormals()
        for row in rows:
            self._steppers[lane].step(row)


class Fed:
    """A fleet with all its streams. ``halves``: one random half is fed after the other."""

    def __init__(self, path: Path, streams: int, lanes: int, limit: int = 0) -> None:
        metrics = Metrics(CollectorRegistry())
        self.fleet = open_fleet(
            path, metrics, capacity=streams, lanes=lanes, limit=limit, step=STEP, most=8, max_state_bytes=2**36
        )
        self.fleet.start()
        self._names = [f"sensor{i}" for i in range(streams)]
        self._rng = np.random.default_rng(0)

    def turn(self, values: Values, at: float, *, halves: bool = False) -> Cost:
        everyone = np.arange(len(values))
        parts = np.array_split(self._rng.permutation(everyone), 2) if halves else [everyone]
        batches = [ReadingBatch([self._names[i] for i in part], np.full(len(part), at), values[part]) for part in parts]

        def run() -> None:
            for batch in batches:
                taken = self.fleet.write(batch, wait=True).safe.result().taken
                if taken != len(batch) or not self.fleet.drain(600.0):
                    raise SystemExit(f"{taken} of {len(batch)} readings were accepted: the turn does not count")

        return timed(run, len(values))

    def close(self) -> None:
        self.fleet.close()


def fleet_and_bare(path: Path, streams: int, rounds: int, lanes: int, limit: int = 0) -> dict[str, Any]:
    """Readings per second, CPU seconds per reading, and shares of the bare loop: of the bare loop, and of the fleet fed
    all at once and in halves."""
    fed = Fed(path, streams, lanes, limit)
    found: dict[str, list[Cost]] = {"bare": [], "fleet": [], "halves": []}
    try:
        bare = Bare(fed.fleet.model, fed.fleet.table.limit, lanes)
        for number, values in enumerate(waves(2 * (WARM + rounds), streams).reshape(-1, 2, streams)):
            at = 2 * STEP * number
            turn = {"bare": bare.turn(values[0], at), "fleet": fed.turn(values[0], at)}
            turn["halves"] = fed.turn(values[1], at + STEP, halves=True)
            for name, cost in turn.items():
                if number >= WARM:
                    found[name].append(cost)
        batch = fed.fleet.table.limit
    finally:
        fed.close()
    return {"batch": batch} | {
        name: {
            "per_second": median(1 / cost.wall for cost in costs),
            "cpu": median(cost.cpu for cost in costs),
            "share_cpu": median(one.cpu / cost.cpu for one, cost in zip(found["bare"], costs, strict=True)),
            "share_wall": median(one.wall / cost.wall for one, cost in zip(found["bare"], costs, strict=True)),
        }
        for name, costs in found.items()
    }


def calls(model: Model, batch: int, count: int, *, window: int = 0) -> float:
    """CPU seconds per reading and stream; ``window``: 0 keeps the states, else each forecast reruns so many readings
    from zero states."""
    values = waves(WINDOW + count, batch)
    rows = np.ones((*values.shape, 1, 4), model.manifest.input.dtype)
    rows[..., 0, 0] = values
    for number, row in enumerate(rows):
        row[:, 0, 2], row[:, 0, 3] = phases(STEP * number)
    took = []
    stepper = Stepper(model, batch)
    for end in range(WINDOW, WINDOW + count):
        begin = time.thread_time()
        if window:
            stepper.reset()
        for row in rows[end - window + 1 : end + 1] if window else rows[end : end + 1]:
            stepper.step(row)
        took.append((time.thread_time() - begin) / batch)
    return median(took)


def river(make: Callable[[], Any], horizon: int, count: int = TIMED, before: int = BEFORE) -> float:
    """CPU seconds to learn a reading and forecast ``horizon`` steps."""
    forecaster, took = make(), []
    values = waves(before + count, 1)[:, 0].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, value in enumerate(values):
            begin = time.thread_time()
            forecaster.learn_one(value)
            if number >= before:
                assert len(forecaster.forecast(horizon=horizon)) == horizon
                took.append(time.thread_time() - begin)
    return median(took)


def others(path: Path, batch: int, count: int = TIMED) -> dict[str, float]:
    """CPU seconds per reading of the alternatives, by name."""
    from river import time_series

    model = Model.load(path)
    horizon = model.manifest.options["horizon"]
    season = {"alpha": 0.3, "beta": 0.1, "gamma": 0.6, "seasonality": 24}
    return {
        "one stream alone": calls(model, 1, 10 * count),
        f"window of {WINDOW} again": calls(model, batch, max(1, count // 10), window=WINDOW),
        "river HoltWinters": river(lambda: time_series.HoltWinters(**season), horizon, count),
        "river SNARIMAX": river(lambda: time_series.SNARIMAX(p=24, d=1, q=0), horizon, count),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench sensors",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", action="append", help="shipped name or path, may be repeated; default: both")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5, help="turns, and readings of each sensor by each protocol")
    parser.add_argument(
        "--lanes", type=int, default=len(os.sched_getaffinity(0)), help="threads, also of the bare loop"
    )
    parser.add_argument("--batch", type=int, default=0, help="streams in a batch, of the bare loop too; 0: as shipped")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    parts = given.part or PARTS
    names = [*ways.HTTP, *ways.MQTT]
    if "ways" in parts and ways.MOSQUITTO is None:
        print("mosquitto is not installed: MQTT is left out (Debian: apt install mosquitto)")
        names = list(ways.HTTP)
    results: dict[str, dict[str, Any]] = {}
    table: list[tuple[object, ...]] = []
    for name in given.model or MODELS:
        path, found = resolve(name), results.setdefault(name, {})
        if "fleet" in parts:
            found["fleet"] = fleet_and_bare(path, given.streams, given.rounds, given.lanes, given.batch)
            gc.collect()  # some gigabytes of states
            table += fleet_rows(name, found["fleet"])
        if "ways" in parts:
            rounds = waves(1 + given.rounds, given.streams)
            found["ways"] = {way: ways.measure(path, rounds, way) for way in names}
            table += [
                (name, way, f"{one['per_second']:.0f}", f"{1e6 * one['cpu']:.0f}", "", f"{one['dropped']:.1%} dropped")
                for way, one in found["ways"].items()
            ]
        if "others" in parts:
            found["others"] = others(path, found["fleet"]["batch"] if "fleet" in found else given.batch or BATCH)
            table += [
                (name, other, "", f"{1e6 * cost:.0f}", "", "one thread") for other, cost in found["others"].items()
            ]
    finish(
        "sensors",
        {"streams": given.streams, "lanes": given.lanes, "rounds": given.rounds, "models": results},
        columns=("model", "", "readings/s", "CPU us each", "of bare: CPU", "by the clock"),
        rows=table,
        as_json=given.json,
    )
    return 0


def fleet_rows(name: str, found: dict[str, Any]) -> list[tuple[object, ...]]:
    said = {
        "bare": f"bare loop, batch {found['batch']}",
        "fleet": "fleet, all at a time",
        "halves": "fleet, random halves",
    }
    return [
        (name, text, f"{one['per_second']:.0f}", f"{1e6 * one['cpu']:.1f}", f"{one['share_cpu']:.2f}",
         f"{one['share_wall']:.2f}")
        for key, text in said.items()
        for one in (found[key],)
    ]  # fmt: skip
