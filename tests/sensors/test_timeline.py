"""The time of one stream: gaps, duplicates, late readings, clocks that jump; and how times are written."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sensors.timeline import AGREEING, CHANGED, GAP, GLITCH, LEARN, RESTARTED, WHOLE, Timelines
from streamer.sources.times import parse_time, show_time

MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


class One:
    """One stream, in a slot between others."""

    def __init__(self, step: float | None = None, limit: int = 100) -> None:
        self.timelines = Timelines(3, step, limit)

    def place(self, time: float) -> tuple[int, int] | None:
        """Masked steps before it, and whether the line breaks; ``None``: left out."""
        placed = self.timelines.place(np.array([1]), np.array([time]))
        return (int(placed.masked[0]), int(placed.breaks[0])) if placed.taken[0] else None

    @property
    def step(self) -> float:
        return float(self.timelines.step[1])

    def count(self, *names: str) -> list[int]:
        return [int(self.timelines.counts[name][1]) for name in names]


def fed(*times: float, step: float | None = None, limit: int = 100) -> One:
    one = One(step, limit)
    for time in times:
        one.place(time)
    return one


REGULAR = [60.0 * i for i in range(LEARN + 1)]
END = REGULAR[-1]


@given(
    step=st.floats(0.001, 1e6), start=st.floats(0, 2e9), slip=st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=30)
)
def test_the_step_is_the_median_and_jitter_is_no_gap(step: float, start: float, slip: list[float]) -> None:
    cadence = fed(*(start + (i + part) * step for i, part in enumerate(slip)))
    assert 0.6 * step < cadence.step < 1.4 * step
    assert fed(*(i * step for i in range(30))).count("masked") == [0]


@pytest.mark.parametrize("step", [1.0, 60.0, 3600.0, 12 * 3600.0])
def test_a_sender_whose_clock_is_set_back_by_a_month_loses_no_reading(step: float) -> None:
    cadence = fed(*(step * i for i in range(20)), limit=1000)
    assert cadence.place(20 * step - 31 * 86400) == (0, RESTARTED)
    assert cadence.place(21 * step - 31 * 86400) == (0, WHOLE)


@pytest.mark.parametrize("jump", [0.0, -1e-6, -30.0, -3600.0, -31 * 86400.0])
def test_a_reading_with_the_time_of_its_arrival_is_never_left_out(jump: float) -> None:
    cadence = fed(*REGULAR)
    placed = cadence.timelines.place(np.array([1]), np.array([END + jump]), np.array([True]))
    assert (placed.taken[0], placed.breaks[0]) == (True, RESTARTED)
    assert cadence.count("late", "duplicates", "restarts") == [0, 0, 1]


def test_a_gap_becomes_masked_steps_up_to_a_bound() -> None:
    cadence = fed(*REGULAR)
    assert cadence.place(END + 4 * 60) == (3, WHOLE)
    assert cadence.place(END + 4 * 60 + 102 * 60) == (100, GAP)
    assert cadence.count("masked", "gaps") == [103, 1]
    assert cadence.place(END + 107 * 60) == (0, WHOLE)


def test_a_step_that_is_given_is_known_at_once() -> None:
    assert fed(0.0, step=10).place(40.0) == (3, WHOLE)
    assert fed(0.0).place(40.0) == (0, WHOLE)


def test_a_gap_among_the_first_readings_does_not_spoil_the_step() -> None:
    assert fed(*REGULAR[:3], *(time + 7200 for time in REGULAR[3:])).step == 60


def test_duplicates_and_late_readings_are_left_out_and_counted() -> None:
    cadence = fed(*REGULAR)
    assert [cadence.place(time) for time in (END, END - 60, END - 3600)] == [None] * 3
    assert cadence.count("duplicates", "late") == [1, 2]
    assert cadence.place(END + 60) == (0, WHOLE)


def test_a_clock_that_is_set_back_far_begins_anew() -> None:
    cadence = fed(*REGULAR)
    far = END - 101 * 60
    assert cadence.place(far) == (0, RESTARTED)
    assert math.isnan(cadence.step)
    assert cadence.count("restarts") == [1]
    for i in range(1, LEARN + 1):
        assert cadence.place(far + i * 10) == (0, WHOLE)
    assert cadence.step == 10


def test_one_reading_from_the_future_costs_one_gap() -> None:
    cadence = fed(*REGULAR)
    assert cadence.place(4e9) == (100, GAP)
    assert cadence.place(END + 60) == (0, RESTARTED)
    assert cadence.place(END + 120) == (0, WHOLE)


@pytest.mark.parametrize("ahead", [2.0, 10.0, 120.0, 900.0])
@pytest.mark.parametrize("known", [4, 30])
def test_a_glitch_ahead_costs_the_two_readings_that_show_it(ahead: float, known: int) -> None:
    one = fed(*(60.0 * i for i in range(known)), limit=1000)
    end = 60.0 * (known - 1)
    one.place(end + 60 * ahead)
    found = [one.place(end + 60 * i) for i in range(1, 40)]
    if ahead > AGREEING:
        assert found[:AGREEING] == [None] * (AGREEING - 1) + [(0, GLITCH)]
        assert found[AGREEING:] == [(0, WHOLE)] * (39 - AGREEING)
    assert one.step == 60
    assert sum(way is None for way in found) <= AGREEING


def test_readings_that_come_again_are_no_sign_of_a_glitch() -> None:
    one = fed(*REGULAR)
    assert [one.place(time) for time in REGULAR[1:-1]] == [None] * (LEARN - 1)  # a resend, without a jump
    one = fed(*REGULAR, END + 600)
    assert [one.place(time) for time in REGULAR[1:]] == [None] * LEARN  # of the time before the jump
    one = fed(*REGULAR, *(END + 600 + 60 * i for i in range(5)))
    assert [one.place(END + 60 * i) for i in range(1, 6)] == [None] * 5  # five live ones speak against it


def test_two_readings_ahead_are_a_glitch_too() -> None:
    one = fed(*REGULAR, END + 7200, END + 7260, limit=1000)
    assert [one.place(END + 60 * i) for i in range(1, 6)] == [None, None, (0, GLITCH), (0, WHOLE), (0, WHOLE)]


def test_a_sensor_may_get_another_step() -> None:
    for step in (10.0, 300.0):
        cadence = fed(*REGULAR)
        found = [cadence.place(END + i * step) for i in range(1, 2 * LEARN)]
        assert cadence.step == step
        assert cadence.count("changes") == [1]
        assert [way for way in found if way is not None and way[1] == CHANGED] == [(0, CHANGED)]
        assert found[-1] == (0, WHOLE)
    given = fed(*REGULAR, step=60.0)
    for i in range(1, 3 * LEARN):
        given.place(END + 300 * i)
    assert given.step == 60
    assert given.count("masked") == [4 * (3 * LEARN - 1)]


def test_every_other_reading_lost_for_a_while_is_no_other_step() -> None:
    cadence = fed(*REGULAR)
    for i in range(1, LEARN):
        cadence.place(END + 120 * i)
    assert cadence.step == 60
    assert cadence.count("masked", "changes") == [LEARN - 1, 0]


TIMES = st.lists(st.sampled_from([0.0, 10, 20, 70, 80, 90, 100, 30, 31, 500, 9000, 40, 60]), max_size=25)


@given(times=st.lists(TIMES, min_size=3, max_size=3), step=st.sampled_from([None, 10.0]))
def test_streams_do_not_know_of_each_other(times: list[list[float]], step: float | None) -> None:
    together = Timelines(3, step, 5)
    alone = [fed(*own, step=step, limit=5).timelines for own in times]
    for turn in range(25):
        slots = [slot for slot in range(3) if len(times[slot]) > turn]
        together.place(np.array(slots, np.intp), np.array([times[slot][turn] for slot in slots]))
    for slot in range(3):
        mine, theirs = together.read(slot), alone[slot].read(1)
        assert all(np.array_equal(mine[name], theirs[name], equal_nan=True) for name in mine)
        again = Timelines(2, step, 5)
        again.write(0, mine)
        assert all(np.array_equal(again.read(0)[name], mine[name], equal_nan=True) for name in mine)


@given(MOMENTS)
def test_a_moment_in_every_way_of_writing(moment: datetime) -> None:
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    seconds = moment.timestamp()
    east = moment.astimezone(timezone(timedelta(hours=5, minutes=30)))
    written = [moment.isoformat(), f"{moment:%Y-%m-%d %H:%M:%S.%f}", east.isoformat(), show_time(seconds), seconds]
    for said in written:
        assert parse_time(said) == pytest.approx(seconds, abs=1e-3)
    for unit in (1, 10**3, 10**6, 10**9):
        if seconds > 1e8 * 3:  # earlier ones are taken for the next coarser unit
            assert parse_time(str(int(seconds) * unit)) == int(seconds)


def test_days_and_slashes() -> None:
    july = datetime(2016, 7, 1, tzinfo=UTC).timestamp()
    assert {parse_time(said) for said in ("20160701", "2016-07-01", "2016/07/01 00:00", "2016-07-01T00:00Z")} == {july}


@pytest.mark.parametrize("said", ["", "soon", "nan", "inf", "1_000", "1e300", "2016-13-01", float("nan"), 10**30])
def test_no_time(said: str | float) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        parse_time(said)
