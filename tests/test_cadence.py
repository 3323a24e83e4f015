"""The time of one stream: gaps, duplicates, late readings, clocks that jump; and how times are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.cadence import LEARN, Cadence, Steps
from streamer.sources.times import parse_time, show_time

MOMENTS = st.datetimes(datetime(1980, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


def fed(*times: float, step: float | None = None, limit: int = 100) -> Cadence:
    cadence = Cadence(step, limit)
    for time in times:
        cadence.place(time)
    return cadence


REGULAR = [60.0 * i for i in range(LEARN + 1)]
END = REGULAR[-1]


@given(
    step=st.floats(0.001, 1e6), start=st.floats(0, 2e9), slip=st.lists(st.floats(-0.2, 0.2), min_size=30, max_size=30)
)
def test_the_step_is_the_median_and_jitter_is_no_gap(step: float, start: float, slip: list[float]) -> None:
    cadence = fed(*(start + (i + part) * step for i, part in enumerate(slip)))
    assert cadence.step is not None
    assert 0.6 * step < cadence.step < 1.4 * step
    assert fed(*(i * step for i in range(30))).masked == 0


def test_a_gap_becomes_masked_steps_up_to_a_bound() -> None:
    cadence = fed(*REGULAR)
    assert cadence.place(END + 4 * 60) == Steps(masked=3)
    assert cadence.place(END + 4 * 60 + 102 * 60) == Steps(masked=100, gap=True)
    assert (cadence.masked, cadence.gaps) == (103, 1)
    assert cadence.place(END + 107 * 60) == Steps()


def test_a_step_that_is_given_is_known_at_once() -> None:
    assert fed(0.0, step=10).place(40.0) == Steps(masked=3)
    assert fed(0.0).place(40.0) == Steps()


def test_a_gap_among_the_first_readings_does_not_spoil_the_step() -> None:
    assert fed(*REGULAR[:3], *(time + 7200 for time in REGULAR[3:])).step == 60


def test_duplicates_and_late_readings_are_left_out_and_counted() -> None:
    cadence = fed(*REGULAR)
    assert [cadence.place(time) for time in (END, END - 60, END - 3600)] == [None] * 3
    assert (cadence.duplicates, cadence.late) == (1, 2)
    assert cadence.place(END + 60) == Steps()


def test_a_clock_that_is_set_back_far_begins_anew() -> None:
    cadence = fed(*REGULAR)
    far = END - 101 * 60
    assert cadence.place(far) == Steps(restarted=True)
    assert (cadence.step, cadence.restarts) == (None, 1)
    for i in range(1, LEARN + 1):
        assert cadence.place(far + i * 10) == Steps()
    assert cadence.step == 10


def test_one_reading_from_the_future_costs_one_gap() -> None:
    cadence = fed(*REGULAR)
    assert cadence.place(4e9) == Steps(masked=100, gap=True)
    assert cadence.place(END + 60) == Steps(restarted=True)
    assert cadence.place(END + 120) == Steps()


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
    with pytest.raises(ValueError, match="is no time"):
        parse_time(said)
