"""More readings than two cores can run: accepted requests are answered within one step, others are refused with 503.

First the daemon gets as many readings as it can run, which gives its capacity on this machine. Then 1.5 times and three
times as many are offered, in requests of some sensors each, at fixed times, without waiting for answers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from bench import setup
from bench.attack import AttackRow, Scale
from streamer.engine.catalogue import resolve

SENSORS, TOGETHER, EPOCH = 2000, 50, 1_767_225_600
#: Seconds of one step, and of each load at share 1. Readings may wait half a step; the other half is for the request.
STEP, LOAD = 10, 40.0
LOADS = (1.5, 3.0)
CLIENTS = 400


class Answer(NamedTuple):
    status: int
    seconds: float
    #: A refusal had a reason and Retry-After.
    explained: bool


def body(round: int, first: int) -> bytes:
    at = EPOCH + STEP * round
    lines = (f'{{"stream": "s{i}", "time": {at}, "value": {i % 7}}}' for i in range(first, first + TOGETHER))
    return "\n".join(lines).encode()


def post(port: int, content: bytes) -> Answer:
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        connection.request("POST", "/v1/readings?forecast=1", content)
        answer = connection.getresponse()
        text = answer.read().decode()
        explained = answer.status == 200 or (
            answer.getheader("Retry-After") is not None and "error" in json.loads(text)
        )
        return Answer(answer.status, time.perf_counter() - begin, explained)


def offered(port: int, rate: float, seconds: float, rounds: Iterator[int], sensors: int) -> list[Answer]:
    """Offer ``rate`` readings a second; late requests are sent, too."""
    answers, begin, sent = [], time.perf_counter(), 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        for round in rounds:
            for first in range(0, sensors, TOGETHER):
                due = begin + sent * TOGETHER / rate
                if due > begin + seconds:
                    return [answer.result() for answer in answers]
                time.sleep(max(0.0, due - time.perf_counter()))
                answers.append(pool.submit(post, port, body(round, first)))
                sent += 1
    raise AssertionError("rounds end")


def run(scale: Scale, model: str = "forecast-universal") -> Iterator[AttackRow]:
    sensors = max(4 * TOGETHER, int(SENSORS * scale.share) // TOGETHER * TOGETHER)
    seconds = max(3.0, LOAD * scale.share)
    settings = {"STREAMER_MAX_WAITING_SECONDS": str(STEP / 2), "STREAMER_SENSOR_STEP": str(STEP)}
    with setup.serving(resolve(model), **settings) as served:
        rounds = iter(range(1_000_000))
        offered(served.port, 1e9, 1e-6, rounds, sensors)
        before, begin = served.value("streamer_readings_run_total"), time.perf_counter()
        for _ in range(2):
            with ThreadPoolExecutor(CLIENTS) as pool:
                round = next(rounds)
                list(pool.map(lambda first, at=round: post(served.port, body(at, first)), range(0, sensors, TOGETHER)))
        capacity = (served.value("streamer_readings_run_total") - before) / (time.perf_counter() - begin)
        for load in LOADS:
            answers = offered(served.port, load * capacity, seconds, rounds, sensors)
            kinds = Counter(answer.status for answer in answers)
            slowest = max((answer.seconds for answer in answers if answer.status == 200), default=0.0)
            name = f"{load:g}x of {capacity:.0f} readings/s"
            yield AttackRow("readings", f"{name}: slowest answer with forecasts", f"{STEP} s", f"{slowest:.1f} s",
                      slowest <= STEP)  # fmt: skip
            fair = kinds[200] > 0 and set(kinds) <= {200, 503} and all(answer.explained for answer in answers)
            yield AttackRow("readings", f"{name}: answers are forecasts, or 503 with reason and Retry-After", "all",
                      f"{kinds[200]} and {kinds[503]} of {len(answers)}", fair)  # fmt: skip
        waiting = _run_out(served)
        yield AttackRow("readings", "readings that wait after the end of the load", "0", str(waiting), waiting == 0)


def _run_out(served: setup.Served) -> int:
    deadline = time.monotonic() + 120
    while (waiting := int(served.value("streamer_waiting_readings"))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return waiting
