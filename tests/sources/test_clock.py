"""The column of the time: what its first cells show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources import SourceError
from streamer.sources.tables.clock import Clock, find_zone, is_time
from streamer.sources.times import parse_time, show_time

MAY = datetime(2024, 5, 1, 10, tzinfo=UTC).timestamp()
WAYS = ("%Y-%m-%dT%H:%M:%S", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M:%S", "%d %b %Y %H:%M:%S", "%B %d, %Y %I:%M:%S %p",
        "%a %b %d %H:%M:%S %Y", "%Y%m%d%H%M%S", "%d-%b-%Y %H:%M:%S", "%d/%b/%Y:%H:%M:%S")  # fmt: skip


@pytest.mark.parametrize(
    "said",
    ["2024-05-01T10:00:00Z", "2024-05-01 10:00", "2024-05-01T12:00:00+02:00", "2024-05-01 12:00:00 +0200",
     "2024-05-01 10:00:00 UTC", "2024/5/1 10:00", "20240501100000", "202405011000", "20240501T100000Z",
     "May 1, 2024 10:00 AM",
     "1 May 2024 10:00", "01-May-2024 10:00:00", "Wed, 01 May 2024 12:00:00 +0200", "Wed May  1 10:00:00 2024",
     "1. Mai 2024 10:00", "01/May/2024:10:00:00 +0000", "2024-05-01T10", "2024-05-01 10:00:00 +0000 UTC",
     "2024-05-01T12:00:00+02:00[Europe/Berlin]", "2024-05-01 10:00:00,000", "1714557600", "1714557600000"],
)  # fmt: skip
def test_one_moment_in_the_ways_of_tools(said: str) -> None:
    assert parse_time(said) == MAY
    assert Clock("t", [said])(said) == MAY


@given(st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1)), st.sampled_from(WAYS))
def test_what_is_written_is_read(moment: datetime, way: str) -> None:
    moment = moment.replace(microsecond=0)
    text = moment.strftime(way)
    assert Clock("t", [text])(text) == moment.replace(tzinfo=UTC).timestamp()
    assert is_time(text)


def test_days_above_twelve_say_where_the_day_is() -> None:
    assert show_time(Clock("t", ["12/05/2024", "13/05/2024"])("12/05/2024")) == "2024-05-12T00:00:00Z"
    assert show_time(Clock("t", ["05/12/2024", "05/13/2024"])("05/12/2024")) == "2024-05-12T00:00:00Z"
    with pytest.raises(SourceError, match="is 2024-05-01 or 2024-01-05: say which with --time-format day-first"):
        Clock("t", ["01/05/2024"])
    with pytest.raises(SourceError, match="with the day first and with the month first"):
        Clock("t", ["13/05/2024", "05/13/2024"])
    assert show_time(Clock("t", ["01/05/2024"], "month-first")("01/05/2024")) == "2024-01-05T00:00:00Z"
    assert show_time(Clock("t", ["01/05/24 7h"], "%d/%m/%y %Hh")("01/05/24 7h")) == "2024-05-01T07:00:00Z"
    with pytest.raises(ValueError, match="is no time as"):
        Clock("t", [], "%d/%m/%Y")("2024-05-01")
    with pytest.raises(SourceError, match="--time-format 'soon' is not known"):
        Clock("t", [], "soon")


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_units_by_size_and_near_1970_by_the_column(unit: str, factor: int) -> None:
    moments = [1714521600, 1714521660]
    clock = Clock("t", [str(moment * factor) for moment in moments])
    assert [clock(str(moment * factor)) for moment in moments] == moments
    early = [-86400 * 400, -86400, 86400, 86400 * 400]
    cells = [str(moment * factor) for moment in [*early, 86400 * 3000]]
    clock = Clock("t", cells)
    assert [clock(cell) for cell in cells][:4] == early
    assert Clock("t", [], unit)(str(5 * factor)) == 5


def test_a_spreadsheets_numbers() -> None:
    clock = Clock("t", ["45413.04", "45413.5"])
    assert show_time(clock("45413.5")) == "2024-05-01T12:00:00Z"
    assert "45413.04 is taken for a spreadsheet's number of a day, 2024-05-01T00:57:36Z" in clock.note
    assert Clock("t", ["45413.5"], "s")("45413.5") == 45413.5
    assert Clock("t", ["0", "45413.5"])("45413.5") == 45413.5


def test_two_digits_of_a_year_may_come_first() -> None:
    with pytest.raises(
        SourceError, match="is 2001-05-24 or 2024-05-01: say which with --time-format day-first or year-first"
    ):
        Clock("t", ["24-05-01"])
    assert show_time(Clock("t", ["24-05-01"], "year-first")("24-05-01")) == "2024-05-01T00:00:00Z"
    assert show_time(Clock("t", ["99-05-01", "32-05-01"])("99-05-01")) == "1999-05-01T00:00:00Z"
    assert show_time(Clock("t", ["01.05.24"])("01.05.24")) == "2024-05-01T00:00:00Z"


def test_a_day_and_an_hour_without_a_mark() -> None:
    clock = Clock("t", ["2024050100", "2024050123"])
    assert show_time(clock("2024050123")) == "2024-05-01T23:00:00Z"
    assert "is taken for a day and an hour" in clock.note
    assert Clock("t", ["1714521600", "2024050100"])("2024050100") == 2024050100


def test_an_hour_that_comes_twice_goes_on_and_one_that_is_left_out_is_refused() -> None:
    berlin = find_zone("Europe/Berlin")
    begin = datetime(2024, 10, 26, 22, tzinfo=UTC)
    moments = [begin + timedelta(minutes=20 * i) for i in range(18)]
    clock = Clock("t", [], zone=berlin)
    for stream in ("a", "b"):
        cells = [f"{moment.astimezone(berlin):%Y-%m-%d %H:%M}" for moment in moments]
        assert [clock(cell, stream) for cell in cells] == [moment.timestamp() for moment in moments]
    with pytest.raises(ValueError, match="is no time in Europe/Berlin: its clocks were set forward over it"):
        clock("2024-03-31 02:30")
    assert clock("2024-10-27T02:30:00Z") == datetime(2024, 10, 27, 2, 30, tzinfo=UTC).timestamp()
    with pytest.raises(SourceError, match="--zone 'Mars' is not known"):
        find_zone("Mars")


@given(st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1), timezones=st.just(ZoneInfo("America/New_York"))))
def test_a_zone_is_kept_to(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, fold=0)
    there = moment.astimezone(UTC).astimezone(moment.tzinfo).replace(tzinfo=None) == moment.replace(tzinfo=None)
    clock = Clock("t", [], zone=find_zone("America/New_York"))
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    if there:
        assert clock(text) == moment.timestamp()
    else:
        with pytest.raises(ValueError, match="set forward"):
            clock(text)


@pytest.mark.parametrize(
    "said", ["", "soon", "2024-13-01", "2024-05-01 25:00", "0001-01-01", "9999-12-31T23:59:59Z", "13:00 PM"]
)
def test_no_time(said: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        Clock("t", ["2024-05-01"])(said)


@given(st.text(max_size=30))
def test_whatever_comes_is_a_time_or_refused(cell: str) -> None:
    try:
        found = Clock("t", [])(cell)
    except ValueError:
        return
    assert -7e10 < found < 3e11
