"""What lanes hand to the event loop: it is bounded, and the loop has other things to do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.columns import StepResult
from streamer.sensors.host import Sensors
from streamer.serve import outbox as module
from streamer.serve.access.grant import ANYONE
from streamer.serve.outbox import Outbox
from streamer.serve.readings.results import ResultQueue
from streamer.serve.readings.subscribe import Subscriber, Subscribers
from streamer.settings import Settings
from tests.sensors.support import feed, fleet


def test_deliveries_without_end_leave_the_event_loop_to_others() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        outbox, asked, left = Outbox(loop), asyncio.Event(), 100_000

        def again() -> None:
            nonlocal left
            left -= 1
            if left == 99_990:
                loop.call_soon(asked.set)
            if left:
                outbox.put(again)

        outbox.put(again)
        await asked.wait()
        found, left = left, 1
        return found

    assert asyncio.run(main()) > 0


def test_many_slow_deliveries_leave_the_event_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(module, "monotonic", lambda: float(next(ticks)))

    async def main() -> tuple[list[int], int]:
        loop, told = asyncio.get_running_loop(), list[int]()
        outbox, asked, done = Outbox(loop), asyncio.Event(), asyncio.Event()
        outbox.put(lambda: loop.call_soon(asked.set) and None)
        for number in range(100):
            outbox.put(lambda number=number: told.append(number))  # type: ignore[misc]
        outbox.put(done.set)
        await asked.wait()
        first = len(told)
        await done.wait()
        return told, first

    told, first = asyncio.run(main())
    assert told == list(range(100))
    assert first < 100


def test_a_flush_delivers_all_that_waits_and_not_what_comes_meanwhile() -> None:
    async def main() -> list[int]:
        told: list[int] = []
        outbox = Outbox(asyncio.get_running_loop())

        def deliver(number: int) -> None:
            told.append(number)
            outbox.put(lambda: deliver(number + 100))

        for number in range(3):
            outbox.put(lambda number=number: deliver(number))  # type: ignore[misc]
        outbox.flush()
        return list(told)

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_lone_delivery_goes_at_once_and_many_are_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream whose client waits for every row would wait for others who do not come."""
    monkeypatch.setattr(module, "PATIENCE", 3600.0)

    async def main() -> tuple[list[int], list[int]]:
        outbox, told = Outbox(asyncio.get_running_loop()), list[int]()

        async def put(numbers: range) -> None:
            for number in numbers:
                outbox.put(lambda number=number: told.append(number))  # type: ignore[misc]
            for _ in range(3):  # longer than any delivery that does not wait
                await asyncio.sleep(0)

        for number in range(3):
            await put(range(number, number + 1))
        alone = list(told)
        await put(range(3, 100))  # these come together, and so the next ones may
        await put(range(100, 110))
        gathered = list(told)
        outbox.flush()
        assert told == list(range(110))
        return alone, gathered

    alone, gathered = asyncio.run(main())
    assert alone == [0, 1, 2]
    assert gathered == list(range(100))


def test_results_that_wait_are_bounded_and_the_oldest_go() -> None:
    made = fleet(lanes=1)
    results: list[StepResult] = []
    made.watch(results.append)
    feed(made, [(name, float(hour), 1.0) for hour in range(50) for name in "abc"])
    made.close()
    assert [len(result.slots) for result in results] == [3] * 50
    calls: list[Callable[[], None]] = []
    told, dropped = list[StepResult](), list[StepResult]()
    queue = ResultQueue(calls.append, lambda _, result: told.append(result), lambda _, r: dropped.append(r), 12)
    threads = [threading.Thread(target=queue.put, args=(made, result)) for result in results]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(calls) <= 5
    for call in calls:
        call()
    assert [*map(id, told)] == [*map(id, results[-4:])]
    assert [*map(id, dropped)] == [*map(id, results[:-4])]
    calls.clear()
    queue.put(made, results[0])
    assert len(calls) == 1
    calls[0]()
    assert told[-1] is results[0]


class Reader:
    """A socket that can be written to."""

    writable, closing = True, False

    grant = ANYONE

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.full = asyncio.Event()

    def send(self, frames: list[bytes]) -> None:
        self.sent += frames
        if len(self.sent) == 4:
            self.full.set()


def test_forecasts_that_the_event_loop_came_too_late_for_are_counted_for_who_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResultQueue.__init__, "__defaults__", (6,))
    registry = CollectorRegistry()
    sensors = Sensors(Settings(state_directory=tmp_path, max_sensors=4, lanes=1), Metrics(registry))
    sensors.load([resolve("forecast-online")])
    (made,) = sensors.fleets.values()

    async def main() -> Any:
        subscribers = Subscribers(sensors, Outbox(asyncio.get_running_loop()))
        socket = Reader()
        subscriber = Subscriber(socket, subscribers)  # type: ignore[arg-type]
        subscriber.patterns = ["a*"]
        subscribers.changed()
        sensors.watch(subscribers.watch)
        feed(made, [(name, float(hour), 1.0) for hour in range(10) for name in ("a1", "a2", "b")])  # the loop waits
        await asyncio.wait_for(socket.full.wait(), 60)
        return socket.sent

    sent = asyncio.run(main())
    sensors.close()
    assert len(sent) == 4
    assert registry.get_sample_value("streamer_dropped_forecasts_total", {"protocol": "websocket"}) == 16
