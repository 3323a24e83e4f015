"""A clock that is set, or a machine that slept: whatever the date does, no sensor and no reading is lost."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.arrivals import Arrivals
from streamer.sensors.host import Sensors
from streamer.sensors.ingest import Fleet
from streamer.sensors.look import look
from streamer.settings import Settings
from tests.sensors.support import batch, feed, fleet

MONTH, KEEP = 31 * 86400.0, 30 * 86400.0


class Machine:
    """Its two clocks: the date, and the seconds that it has been awake."""

    def __init__(self) -> None:
        self.date, self.awake = 1_700_000_000.0, 1000.0

    def passes(self, seconds: float) -> None:
        self.date += seconds
        self.awake += seconds


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(time, "time", lambda: made.date)
    return made


def host(machine: Machine, path: Path) -> tuple[Sensors, Fleet]:
    settings = Settings(state_directory=path, max_sensors=4, lanes=1, sensor_keep_seconds=0)
    made = Sensors(settings, Metrics(CollectorRegistry()), lambda: machine.awake)
    made.load([resolve("forecast-online")])
    return made, next(iter(made.fleets.values()))


def test_who_watches_hears_of_a_forgotten_sensor_and_not_of_one_that_moved() -> None:
    sensors, gone = fleet(), list[str]()
    sensors.forgotten_watchers.append(gone.append)
    feed(sensors, [("a", 1, 1.0), ("b", 1, 1.0)])
    assert sensors.forget("a", moved=True).result(60) is True
    assert sensors.forget("b").result(60) is True
    assert sensors.forget("c").result(60) is False
    sensors.close()
    assert gone == ["b"]


@pytest.mark.parametrize("jump", [MONTH, -MONTH, 50 * 366 * 86400.0])
def test_a_change_of_the_date_forgets_nobody(machine: Machine, tmp_path: Path, jump: float) -> None:
    made, sensors = host(machine, tmp_path)
    feed(sensors, [("a", 1, 1.0), ("b", 1, 1.0)])
    machine.date += jump  # the clock is set, or the machine slept
    assert sensors.expire(KEEP) == []
    machine.passes(KEEP - 1)
    feed(sensors, [("b", 2, 1.0)])
    assert sensors.expire(KEEP) == []
    machine.passes(2)
    assert sensors.expire(KEEP) == ["a"]
    machine.passes(KEEP)
    assert sensors.expire(KEEP) == ["b"]
    made.close()


def test_silence_adds_up_over_restarts_and_the_time_between_them_does_not_count(
    machine: Machine, tmp_path: Path
) -> None:
    made, sensors = host(machine, tmp_path)
    feed(sensors, [("a", 1, 1.0)])
    for _ in range(3):
        machine.passes(KEEP / 3 - 1)
        assert sensors.expire(KEEP) == []
        made.drain(60)
        made.close()
        machine.date += MONTH
        machine.awake = 5.0  # it was started anew
        made, sensors = host(machine, tmp_path)
    assert sensors.expire(KEEP) == []
    machine.passes(10)
    assert sensors.expire(KEEP) == ["a"]
    made.close()


def test_a_sensor_that_speaks_up_while_it_is_being_forgotten_stays(machine: Machine, tmp_path: Path) -> None:
    made, sensors = host(machine, tmp_path)
    feed(sensors, [("a", 1, 1.0)])
    slot = sensors.slots["a"]
    id, seq = int(sensors.ids[slot]), int(sensors.written[slot])
    feed(sensors, [("a", 2, 1.0)])
    assert sensors._forget("a", (id, seq)).result(60) is False
    assert sensors._forget("a", (id + 1, seq + 1)).result(60) is False
    assert sensors._forget("a", (id, seq + 1)).result(60) is True
    made.close()


@pytest.mark.parametrize("jump", [MONTH, -MONTH, -3600.0, -90.0])
def test_readings_without_a_time_are_all_taken_whatever_the_date_does(jump: float) -> None:
    now = 1_700_000_000.0
    arrivals = Arrivals(lambda: now)
    made = fleet(step=None)
    nan = float("nan")
    count = 0
    for minute in range(60):
        now += 60 + (jump if minute == 30 else 0)
        told = made.write(arrivals(batch([("a", nan, float(minute))])), answer=True).forecasts
        assert told is not None
        count += len(told.result(60))
    sensor = look(made, "a")
    made.close()
    assert sensor is not None
    assert (count, sensor.readings, sensor.counts["late"], sensor.counts["duplicates"]) == (60, 60, 0, 0)
    assert np.isclose(sensor.step or 0, 60)


def test_after_a_crash_stamped_readings_are_run_as_they_were(machine: Machine, tmp_path: Path) -> None:
    made, sensors = host(machine, tmp_path)
    nan, arrivals = float("nan"), Arrivals(lambda: machine.date)
    for jump in (60, 60, -7200, 60):
        machine.passes(60)
        machine.date += jump
        sensors.write(arrivals(batch([("a", nan, 1.0)]))).safe.result(60)
    assert sensors.drain(60)
    before = look(sensors, "a")
    made.close()
    again, sensors = host(machine, tmp_path)
    assert sensors.drain(60)
    after = look(sensors, "a")
    again.close()
    assert before is not None
    assert after is not None
    assert (before.readings, before.counts["restarts"], before.counts["late"]) == (4, 1, 0)
    assert (after.readings, after.counts, after.time) == (before.readings, before.counts, before.time)
