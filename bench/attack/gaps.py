"""One sensor causes hours of work with a few bytes: its readings are far apart, and each gap must be filled.

Twenty readings a minute apart define the step; a thousand follow that are 120 to 239 steps apart. While they wait to be
run, twenty other sensors send their first readings; then the daemon gets SIGTERM, and is started on the same state. At
the end the forecasts of all sensors are compared with those of a daemon without these events.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench import setup
from bench.attack import AttackRow, Scale
from streamer.engine.catalogue import resolve

STEP, EPOCH = 60, 1_767_225_600
OTHERS = 20
#: Number of readings that are far apart at share 1; settings of the daemon. Its bounds on gaps have their defaults.
FAR, DRAIN, GAP, EARNED, SAVED = 1000, 8.0, 240, 16, 8
#: The most seconds of an answer during the attack; and of the end beyond ``drain_seconds``.
SOON, LEAVE = 1.0, 2.0
#: Relative tolerance of results, since batches of another size round differently.
ALIKE = 1e-3

Reading = tuple[str, int, float]


def attack(count: int, seed: int) -> list[Reading]:
    rng = np.random.default_rng(seed)
    steps = np.cumsum([*np.ones(20, np.int64), *rng.integers(120, 240, count)])
    return [("gaps", EPOCH + STEP * int(step), float(np.sin(step / 50))) for step in steps]


def others(rounds: int) -> list[list[Reading]]:
    """One reading of each other sensor in each round."""
    return [[(f"other{i}", EPOCH + STEP * at, float(i + np.sin(at))) for i in range(OTHERS)] for at in range(rounds)]


def post(port: int, readings: Sequence[Reading], query: str = "") -> tuple[int, str]:
    rows = [json.dumps({"stream": name, "time": at, "value": value}) for name, at, value in readings]
    body = gzip.compress("\n".join(rows).encode())
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(connection):
        connection.request("POST", f"/v1/readings{query}", body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def forecasts(port: int) -> dict[str, Any]:
    """The forecast of each sensor, by name."""
    names = json.loads(setup.get(port, "/v1/forecast"))["streams"]
    return {name: json.loads(setup.get(port, f"/v1/forecast/{name}")) for name in names}


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """The differences of two JSON documents, with numbers compared by ``ALIKE``."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(one.keys() | other.keys())
        return [d for key in keys for d in differences(one.get(key), other.get(key), f"{path}/{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [d for at, pair in enumerate(zip(one, other, strict=True)) for d in differences(*pair, f"{path}/{at}")]
    if isinstance(one, float) and isinstance(other, float):
        return [] if abs(one - other) <= ALIKE * max(1.0, abs(one)) else [f"{path}: {one} and {other}"]
    return [] if one == other else [f"{path}: {one} and {other}"]


def _until_run(served: setup.Served) -> None:
    deadline = time.monotonic() + 600
    while served.value("streamer_waiting_readings"):
        if time.monotonic() > deadline:
            raise SystemExit("readings still wait after ten minutes")
        time.sleep(0.1)


def run(scale: Scale, model: str = "forecast-universal", drain: float = DRAIN, rounds: int = 3) -> Iterator[AttackRow]:
    readings = attack(max(40, int(FAR * scale.share)), scale.seed)
    beside = others(rounds)
    settings = {"STREAMER_DRAIN_SECONDS": str(drain), "STREAMER_LANES": "1"}
    with tempfile.TemporaryDirectory() as folder:
        settings["STREAMER_STATE_DIRECTORY"] = folder
        with setup.serving(resolve(model), **settings) as served:
            sender = threading.Thread(target=_ignored, args=(served.port, readings))
            sender.start()
            served.wait_for("streamer_waiting_readings", 1)
            answers = list[tuple[int, float]]()
            for each in beside:
                for reading in each:
                    begin = time.perf_counter()
                    status, _ = post(served.port, [reading], "?forecast=1")
                    answers.append((status, time.perf_counter() - begin))
            waiting = int(served.value("streamer_waiting_readings"))
            good, slowest = sum(status == 200 for status, _ in answers), max(took for _, took in answers)
            yield AttackRow("gaps", "other sensors' readings that are answered", f"{len(answers)} of {len(answers)}",
                      f"{good}, while {waiting} readings waited", good == len(answers) and waiting > 0)  # fmt: skip
            yield AttackRow("gaps", "slowest of these answers", f"{SOON:g} s", f"{slowest:.2f} s", slowest <= SOON)
            begin = time.perf_counter()
            served.process.terminate()
            code = served.process.wait(120)
            took = time.perf_counter() - begin
            sender.join()
            yield AttackRow(
                "gaps", "SIGTERM to the end", f"{drain + LEAVE:g} s", f"{took:.1f} s", took <= drain + LEAVE
            )
            yield AttackRow("gaps", "exit code", "0", str(code), code == 0)
        with setup.serving(resolve(model), **settings) as served:
            left = int(served.value("streamer_waiting_readings"))
            status, _ = post(served.port, [("late", EPOCH, 1.0)], "?forecast=1")
            yield AttackRow("gaps", "a new sensor is answered while readings are run again", "200",
                      f"{status}, {left} readings waited at the start", status == 200)  # fmt: skip
            _until_run(served)
            found = forecasts(served.port)
    with setup.serving(resolve(model), STREAMER_LANES="1") as served:
        for each in (readings, *beside, [("late", EPOCH, 1.0)]):
            post(served.port, each, "?forecast=1")
        expected = forecasts(served.port)
        masked = _masked(served)
    unlike = differences(found, expected)
    yield AttackRow("gaps", "forecasts of all sensors, as without the attack", f"within {ALIKE:g}",
              unlike[0] if unlike else f"{len(found)} sensors alike", not unlike)  # fmt: skip
    most = SAVED * GAP + EARNED * len(readings)
    yield AttackRow("gaps", "steps that the gaps of the attack cost", f"at most {most}", str(masked), masked <= most)


def _ignored(port: int, readings: Sequence[Reading]) -> None:
    """Send readings and ignore the answer, which would come after all are run: the daemon ends before that."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        post(port, readings)


def _masked(served: setup.Served) -> int:
    page = setup.get(served.port, "/metrics").splitlines()
    lines = [line for line in page if line.startswith("streamer_clock_events_total{") and '"masked"' in line]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
