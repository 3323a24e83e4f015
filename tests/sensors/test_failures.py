"""Readings of many requests are run as one: whatever fails among them costs nobody else a reading, and it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from streamer.sensors.backlog import Work
from streamer.sensors.columns import Forecasts, ReadingBatch, StepResult
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look
from streamer.sensors.writes import PendingWrite
from streamer.serve.readings.routes import _lines
from tests.poison import raising
from tests.sensors.support import HOUR, batch, feed, fleet

NAMES = ["a", "b", "c", "d", "e"]
POISON = 666.0


@pytest.fixture
def sensors() -> Iterator[Fleet]:
    made = fleet(capacity=5, lanes=1)
    feed(made, [(name, float(hour), 1.0) for hour in range(3) for name in NAMES])
    yield made
    made.close()


def together(sensors: Fleet, batches: list[ReadingBatch]) -> list[Forecasts]:
    """One request for each, all of them run by the lane in one go."""
    (lane,) = sensors.lanes
    writings: list[PendingWrite] = []
    with lane.lock:
        sensors.write(batch([("a", 3.0, 1.0)])).safe.result(60)  # the lane has taken this, or takes all of it at once
        for each in batches:
            writings.append(sensors.write(each, answer=True))
            assert writings[-1].safe.result(60).taken == len(each)
    found = [writing.forecasts.result(60) for writing in writings if writing.forecasts is not None]
    assert sensors.drain(60)
    return found


def requests() -> list[ReadingBatch]:
    """Two readings of each sensor; the first one of ``c`` is poisoned."""
    return [
        batch([(name, 4.0, POISON if name == "c" else 2.0), *((before, 5.0, 3.0) for before in NAMES[at - 1 : at])])
        for at, name in enumerate(NAMES)
    ]


def failed(sensors: Fleet) -> float:
    return sensors.metrics.failed_readings._value.get()


def check(sensors: Fleet, answers: list[Forecasts]) -> None:
    lost = [[("c", 4 * HOUR)] if at == 2 else [] for at in range(5)]
    assert [list(answer.failed) for answer in answers] == lost
    assert failed(sensors) == 1
    told = {(name, time / HOUR) for answer in answers for name, time in zip(answer.names, answer.times, strict=True)}
    assert {("a", 4.0), ("b", 4.0), ("d", 4.0), ("e", 4.0), ("c", 5.0)} <= told
    assert ("c", 4.0) not in told
    counts = {name: sensor.readings for name in NAMES if (sensor := look(sensors, name)) is not None}
    assert counts == {"a": 6, "b": 5, "c": 4, "d": 5, "e": 4}


def test_a_reading_whose_time_can_not_be_placed_costs_no_other_one(
    sensors: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot, place = sensors.slots["c"], sensors.table.timelines.place
    bad = raising(
        place, lambda slots, times, stamped: bool(((slots == slot) & (times == 4 * HOUR)).any()), ValueError("poison")
    )
    monkeypatch.setattr(sensors.table.timelines, "place", bad)
    check(sensors, together(sensors, requests()))


def test_a_reading_that_can_not_be_scored_costs_no_other_one(sensors: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = sensors.table.track.truth
    bad = raising(truth, lambda rows, values, seasons: bool((values == POISON).any()), ValueError("poison"))
    monkeypatch.setattr(sensors.table.track, "truth", bad)
    check(sensors, together(sensors, requests()))


def test_a_reading_that_can_not_be_run_is_told_of(sensors: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    name = sensors.model.manifest.input.name
    bad = raising(sensors.model.run, lambda feeds: bool((feeds[name][:, 0, 0] == POISON).any()), ValueError("poison"))
    monkeypatch.setattr(sensors.model, "run", bad)
    check(sensors, together(sensors, requests()))


def test_readings_without_a_time_are_run_once_although_another_one_failed(
    sensors: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = sensors.table.track.truth
    bad = raising(truth, lambda rows, values, seasons: bool((values == POISON).any()), ValueError("poison"))
    monkeypatch.setattr(sensors.table.track, "truth", bad)
    now = [
        ReadingBatch([name], np.array([4 * HOUR]), np.array([POISON if name == "c" else 2.0]), np.ones(1, np.bool_))
        for name in NAMES
    ]
    answers = together(sensors, now)
    assert [len(answer) for answer in answers] == [1, 1, 0, 1, 1]
    assert {name: look(sensors, name).readings for name in NAMES} == {"a": 5, "b": 4, "c": 3, "d": 4, "e": 4}  # type: ignore[union-attr]


def test_work_that_is_none_costs_no_work_beside_it(sensors: Fleet) -> None:
    (lane,) = sensors.lanes
    told: list[object] = []
    slot = np.array([sensors.slots["c"]])
    generation, nothing = sensors.table.arena.generations[slot], np.zeros((1, 1, 1))
    poison = Work(slot, generation, nothing, nothing, None, 9, told.append, told.append)  # type: ignore[arg-type]
    with lane.lock:
        sensors.write(batch([("a", 3.0, 1.0)])).safe.result(60)
        before = sensors.write(batch([("b", 4.0, 2.0)]), answer=True)
        before.safe.result(60)
        lane.put(poison)
        behind = sensors.write(batch([("d", 4.0, 2.0)]), answer=True)
        behind.safe.result(60)
    for writing in (before, behind):
        assert writing.forecasts is not None
        assert len(writing.forecasts.result(60)) == 1
    assert lane.idle(60)
    assert failed(sensors) == 1
    assert [None if rows is None else rows.tolist() for rows in told] == [[0], None]  # type: ignore[attr-defined]


def test_readings_of_a_former_owner_are_dropped_and_counted(sensors: Fleet) -> None:
    (lane,) = sensors.lanes
    slot, seen = sensors.slots["c"], list[StepResult]()
    sensors.watch(seen.append)
    with lane.lock:
        writing = sensors.write(batch([("c", 4.0, 2.0), ("d", 4.0, 2.0)]), answer=True)
        writing.safe.result(60)
        applied = int(sensors.table.applied[slot])
        sensors.table.arena.renew(slot)
    assert writing.forecasts is not None
    assert list(writing.forecasts.result(60).names) == ["d"]
    assert sensors.drain(60)
    assert sensors.metrics.late_results._value.get() == 1
    assert [name for result in seen for name in result.names] == ["d"]
    assert sensors.table.applied[slot] == applied


def test_an_answer_with_forecasts_names_the_readings_that_failed(
    sensors: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensors.model, "run", lambda feeds: 1 / 0)
    (line,) = map(json.loads, _lines(feed(sensors, [("a", 3.0, 1.0)])).splitlines())
    assert (line["stream"], line["time"]) == ("a", 3 * HOUR)
    assert "failed" in line["error"]
