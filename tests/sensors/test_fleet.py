"""Many sensors at once: order, gaps, clocks that jump, company, table, and what waits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.sensors.arrivals import Arrivals
from streamer.sensors.columns import ReadingBatch, StepResult
from streamer.sensors.host import Sensors
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import SensorView, look
from streamer.sensors.open import open_fleet
from streamer.sensors.scores import COUNT
from streamer.sensors.timeline import GAP, RESTARTED
from streamer.sensors.writes import BusyError
from streamer.settings import Settings
from tests.sensors.support import HOUR, batch, feed, fleet, lives


@pytest.fixture
def sensors() -> Iterator[Fleet]:
    made = fleet()
    yield made
    made.close()
    gc.collect()


def test_what_comes_out_is_in_the_order_of_what_went_in(sensors: Fleet) -> None:
    rng = np.random.default_rng(0)
    hours = {"a": 0, "b": 0, "c": 0}
    given: list[tuple[str, float, float | None]] = []
    for name in rng.choice(["a", "b", "c"], 300, p=[0.8, 0.15, 0.05]):
        hours[name] += 1
        given.append((str(name), hours[name], float(rng.normal())))
    told = feed(sensors, given)
    assert list(zip(told.names, told.times / HOUR, told.values, strict=True)) == given
    assert told.known.all()
    assert (np.diff(told.quantiles, axis=2) >= 0).all()


def test_a_stream_does_not_know_of_its_company_nor_of_its_chunks() -> None:
    given = lives(5, 80)
    company = fleet(capacity=8, limit=4)
    one = feed(company, given)
    company.close()
    for stream in range(5):
        own = [reading for reading in given if reading[0] == f"s{stream}"]
        alone = fleet(capacity=1, lanes=1)
        parts = [feed(alone, own[first : first + 7]) for first in range(0, len(own), 7)]
        alone.close()
        mine = np.array([name == f"s{stream}" for name in one.names])
        quantiles = np.concatenate([part.quantiles for part in parts])
        assert np.allclose(one.quantiles[mine], quantiles, rtol=1e-4, atol=1e-4)
        assert np.allclose(one.anomalies[mine], np.concatenate([part.anomalies for part in parts]), atol=1e-4)


def test_a_gap_is_so_many_masked_steps(sensors: Fleet) -> None:
    told = feed(sensors, [("a", float(hour), hour % 3) for hour in range(30) if not 10 <= hour < 14])
    sensor = look(sensors, "a")
    assert sensor is not None
    assert (sensor.readings, sensor.counts["masked"], len(told)) == (26, 4, 26)
    assert sensors.table.track._now.max() == 30


@pytest.mark.parametrize(("jump", "why"), [(100.0, GAP), (-5000.0, RESTARTED)])
def test_behind_a_break_nothing_is_settled_that_was_open(sensors: Fleet, jump: float, why: int) -> None:
    first = [("a", 6000.0 + hour, float(hour % 2)) for hour in range(40)]
    told = feed(sensors, [*first, *(("a", 6040.0 + jump + hour, 500.0 + hour % 2) for hour in range(40))])
    assert told.breaks.nonzero()[0].tolist() == [40]
    assert told.breaks[40] == why
    settled = sensors.table.track._life[sensors.slots["a"]][COUNT]
    assert settled.tolist() == [2.0 * (40 - ahead) for ahead in range(1, 25)]


def test_duplicates_and_late_readings_are_not_told_of(sensors: Fleet) -> None:
    told = feed(sensors, [("a", 5, 1.0), ("a", 5, 2.0), ("a", 4, 3.0), ("a", 4, 3.0), ("a", 6, 4.0), ("b", 1, 5.0)])
    assert told.values.tolist() == [1.0, 4.0, 5.0]
    sensor = look(sensors, "a")
    assert sensor is not None
    assert (sensor.readings, sensor.counts["duplicates"], sensor.counts["late"]) == (2, 1, 2)
    assert len(feed(sensors, [("a", 6, 1.0)])) == 0


def test_a_look_does_not_wait_for_the_work_in_hand(sensors: Fleet) -> None:
    """Thousands of readings of one stream are one piece of work, and the metrics page looks at streams."""
    inside, go = threading.Event(), threading.Event()

    def hold(result: StepResult) -> None:
        if result.values[0] == 5.0:
            inside.set()
            assert go.wait(60)

    sensors.watch(hold)
    writing = sensors.write(batch([("a", hour, float(hour)) for hour in range(10)]), answer=True)
    assert inside.wait(60)
    found: list[SensorView | None] = []
    looking = threading.Thread(target=lambda: found.append(look(sensors, "a")), daemon=True)
    looking.start()
    looking.join(60)
    go.set()
    assert [sensor and (sensor.value, sensor.readings) for sensor in found] == [(5.0, 6)]
    assert writing.forecasts is not None
    assert writing.forecasts.result(60).values.tolist() == [float(hour) for hour in range(10)]


def test_work_that_gets_on_is_not_stuck(sensors: Fleet) -> None:
    """However long it takes as a whole."""
    told: list[float] = []

    def note(result: StepResult) -> None:
        time.sleep(0.02)
        told.append(max(lane.stalled() for lane in sensors.lanes))

    sensors.watch(note)
    feed(sensors, [("a", hour, float(hour)) for hour in range(40)])
    assert len(told) == 40
    assert told != sorted(told)  # it does not grow from step to step


def test_there_is_no_more_room_than_was_asked_for(sensors: Fleet) -> None:
    given = batch([(name, 0.0, 1.0) for name in "abcdabcd"])
    receipt = sensors.write(given).safe.result(60)
    assert (receipt.taken, receipt.refused, receipt.refusals[0].example) == (6, 2, "d")
    assert sensors.forget("b").result(60)
    assert not sensors.forget("nobody").result(60)
    assert sensors.drain(60)
    assert sensors.write(batch([("d", 0.0, 1.0)])).safe.result(60).taken == 1


def test_a_slot_is_as_new_for_its_next_stream(sensors: Fleet) -> None:
    given = [("a", hour, value) for _, hour, value in lives(1, 40)]
    alone = feed(sensors, given)
    sensors.forget("a").result(60)
    sensors.drain(60)
    again = feed(sensors, given)
    assert np.array_equal(again.quantiles, alone.quantiles)
    assert again.steps.tolist() == alone.steps.tolist()
    assert look(sensors, "a") is not None


def test_what_waits_is_bounded_and_nobody_waits_in_vain() -> None:
    made = fleet(start=False, waiting=10)
    made.write(batch([("a", hour, 1.0) for hour in range(8)]))
    with pytest.raises(BusyError, match="8 readings wait"):
        made.write(batch([("a", hour, 1.0) for hour in range(8, 11)]))
    second: list[int] = []

    def write() -> None:
        second.append(made.write(batch([("a", hour, 1.0) for hour in range(8, 11)]), wait=True).safe.result(60).taken)

    waiting = threading.Thread(target=write)
    waiting.start()
    made.start()
    waiting.join(60)
    assert second == [3]
    assert made.drain(60)
    assert made.waiting == 0
    made.close()
    with pytest.raises(BusyError, match="going down"):
        made.write(batch([("a", 20, 1.0)]))


def test_a_batch_larger_than_what_may_wait_is_taken_alone() -> None:
    made = fleet(waiting=10)
    assert len(feed(made, [("a", hour, 1.0) for hour in range(30)])) == 30
    made.close()


def test_watchers_get_what_was_run(sensors: Fleet) -> None:
    seen: list[tuple[str, float]] = []
    sensors.watch(
        lambda result: seen.extend(zip((sensors.names[s] for s in result.slots), result.times.tolist(), strict=True))
    )
    feed(sensors, [("a", 1, 1.0), ("b", 1, 2.0), ("a", 1, 1.0), ("a", 4, 1.0)])
    assert sorted(seen) == [("a", HOUR), ("a", 4 * HOUR), ("b", HOUR)]


def test_a_failing_run_costs_its_own_streams_only_and_the_lane_lives(
    sensors: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feed(sensors, [("a", 0, 1.0), ("b", 0, 1.0)])
    run = sensors.model.run
    monkeypatch.setattr(sensors.model, "run", lambda feeds: 1 / 0)
    assert len(feed(sensors, [("a", 1, 1.0)])) == 0
    assert "begin again" in caplog.text
    monkeypatch.setattr(sensors.model, "run", run)
    assert len(feed(sensors, [("a", 2, 1.0), ("b", 1, 1.0)])) == 2


def test_a_client_that_goes_away_ends_no_lane(sensors: Fleet) -> None:
    """Neither while its readings are run nor while they are committed."""
    inside, go = threading.Event(), threading.Event()

    def hold(result: StepResult) -> None:
        inside.set()
        assert go.wait(60)

    async def ask() -> None:
        writing = sensors.write(batch([("a", 0, 1.0)]), answer=True)
        assert writing.forecasts is not None
        waiting = [asyncio.create_task(_of(future)) for future in (writing.safe, writing.forecasts)]
        await asyncio.to_thread(inside.wait, 60)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        go.set()

    sensors.watch(hold)
    asyncio.run(ask())
    assert sensors.drain(60)
    assert all(lane.is_alive() for lane in sensors.lanes)
    assert len(feed(sensors, [("a", 1, 1.0), ("b", 1, 1.0), ("c", 1, 1.0)])) == 3


async def _of(future: Future[Any]) -> Any:
    return await asyncio.wrap_future(future)


def test_a_watcher_that_raises_costs_nobody_else_anything(sensors: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[float] = []
    sensors.watch(lambda result: 1 / 0)
    sensors.watch(lambda result: seen.extend(result.values.tolist()))
    assert feed(sensors, [("a", hour, float(hour)) for hour in range(3)]).values.tolist() == [0.0, 1.0, 2.0]
    assert seen == [0.0, 1.0, 2.0]
    assert "could not be handed over" in caplog.text


def test_what_is_said_of_a_sensor_never_goes_out_under_the_name_of_the_next_owner_of_its_slot(tmp_path: Path) -> None:
    """Watchers hand results to the event loop, which may look at them when the slot is somebody else's."""
    registry = CollectorRegistry()
    settings = Settings(state_directory=tmp_path, max_sensors=1, lanes=1)
    host = Sensors(settings, Metrics(registry))
    host.load([resolve("forecast-online")])
    (sensors,) = host.fleets.values()
    later: list[StepResult] = []
    host.watch(lambda fleet, result: later.append(result))
    feed(sensors, [("old", 1, 1.0), ("old", 2, 2.0)])
    current = [host.current(sensors, result).names for result in later]
    assert sensors.forget("old").result(60)
    gone = [host.current(sensors, result).names for result in later]
    assert sensors.drain(60)
    feed(sensors, [("new", 1, 5.0)])
    reused = [host.current(sensors, result).names for result in later]
    host.close()
    assert later[0].slots == later[2].slots  # the slot was used again
    assert (current, gone, reused) == ([["old"], ["old"]], [[], []], [[], [], ["new"]])
    assert registry.get_sample_value("streamer_late_results_total", {"model": "forecast-online"}) == 4


def test_one_failing_reading_costs_no_other_sensor_of_its_batch_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven sensors in one batch, one of them fails once: the others go on as in a fleet where nothing failed."""
    names = [f"s{i}" for i in range(7)]
    hours = [[(name, float(hour), np.sin(hour + i)) for i, name in enumerate(names)] for hour in range(6)]
    told: list[dict[str, list[tuple[float, ...]]]] = []
    for poisoned in (False, True):
        made = fleet(capacity=7, lanes=1)
        run = made.model.run
        spec = made.model.manifest.input.name

        def fails(feeds: dict, run=run, spec=spec) -> dict:
            if (feeds[spec][:, 0, 0] == 666).any():
                raise RuntimeError("666")
            return run(feeds)

        monkeypatch.setattr(made.model, "run", fails)
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
        for hour, readings in enumerate(hours):
            if poisoned and hour == 3:
                readings = [(name, at, 666.0 if name == "s2" else value) for name, at, value in readings]
            answer = feed(made, readings)
            for name, quantiles in zip(answer.names, answer.quantiles, strict=True):
                found[name].append(tuple(quantiles.ravel().tolist()))
        told.append(found)
        made.close()
    honest, beside = told
    assert len(beside["s2"]) == 5
    assert honest["s2"][:3] == beside["s2"][:3]
    assert {name: beside[name] for name in names if name != "s2"} == {
        name: honest[name] for name in names if name != "s2"
    }


def test_an_empty_batch_is_answered(sensors: Fleet) -> None:
    writing = sensors.write(ReadingBatch.of([]), answer=True)
    assert writing.safe.result(60).taken == 0
    assert writing.forecasts is not None
    assert len(writing.forecasts.result(60)) == 0


def test_what_can_not_forecast_is_refused_with_the_reason() -> None:
    for name, message, capacity in (("digits", "does not forecast", 1), ("forecast-online", "MiB are allowed", 10**6)):
        with pytest.raises(ModelError, match=message):
            open_fleet(resolve(name), Metrics(), capacity=capacity)


def test_readings_without_a_time_arrive_one_after_another_whatever_the_clock_does() -> None:
    now = 1000.0
    arrivals = Arrivals(lambda: now)
    nan = float("nan")
    times = []
    for now in (1000.0, 1000.0, 999.0, 1001.0):  # noqa: B007  # the clock reads it
        times += arrivals(ReadingBatch.made(["a", "b", "a", "a"], [nan, 5.0, nan, nan], [1.0] * 4)).times.tolist()
    own = [time for time in times if time != 5.0]
    assert own == sorted(set(own))
    assert len(own) == 12
    now = 500.0
    assert arrivals(ReadingBatch.made(["a"], [nan], [1.0])).times[0] == 500.0
