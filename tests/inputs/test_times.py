"""Tables: how times are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.inputs.cases import Case, hold
from tests.inputs.inside import forecast
from tests.inputs.test_tables import case, wide

ORDER = 3.1
ABOUT = {
    "Tables: times": "Without a zone: UTC, or `--zone`. The first cells of a column say how it writes times.",
}
(TIMES,) = ABOUT
CASES = (
    case(
        TIMES,
        "ISO 8601, each with another zone",
        wide(
            "time,a",
            "2024-05-01T10:00:00Z,1",
            "2024-05-01T13:00:00+02:00,2",
            "2024-05-01 14:00:00+0200,3",
            "2024-05-01T13:00,4",
        ),
        4,
    ),
    case(TIMES, "unix time in ms", wide("ts,a", "1714521600000,1", "1714521660000,2"), 2),
    case(TIMES, "unix time in ns", wide("ts,a", "1714521600000000000,1", "1714521660000000000,2"), 2),
    case(
        TIMES,
        "a spreadsheet's numbers",
        wide("time,a", "45413.04,1", "45413.05,2"),
        2,
        "data.csv: column time: 45413.04 is taken for a spreadsheet's number of a day, 2024-05-01T00:57:36Z; "
        "--time-format s: seconds",
    ),
    case(
        TIMES,
        "1 May or 5 January",
        wide("Date,a", "01/05/2024,1", "02/05/2024,2"),
        -1,
        "data.csv: column Date: '01/05/2024' is 2024-05-01 or 2024-01-05: say which with --time-format day-first or "
        "month-first (or a pattern, '%d/%m/%Y %H:%M')",
        2,
    ),
    case(
        TIMES,
        "the same with their format given",
        wide("Date,a", "01/05/2024,1", "02/05/2024,2"),
        2,
        more=" --time-format '%d/%m/%Y'",
    ),
    case(TIMES, "a day above 12 shows it", wide("Date,a", "12/05/2024,1", "13/05/2024,2"), 2),
    case(TIMES, "names of months, AM and PM", wide("time;a", "May 1, 2024 10:00 AM;1", "May 1, 2024 1:00 PM;2"), 2),
    case(TIMES, "date and time in two columns", wide("Date,Time,a", "2024-05-01,10:00,1", "2024-05-01,11:00,2"), 2),
    case(
        TIMES,
        "the same, with other names",
        wide("D,C,a", "2024-05-01,10:00,1", "2024-05-01,11:00,2"),
        2,
        more=" --time D --time C",
    ),
    case(
        TIMES,
        "year, month, day and hour",
        wide("year,month,day,hour,a", "2013,3,1,0,4", "2013,3,1,1,5"),
        2,
        "data.csv: the time is taken from year, month, day, hour",
    ),
    case(
        TIMES,
        "an hour that is not there",
        wide("time,a", "2024-03-31 01:30,1", "2024-03-31 02:30,2", "2024-03-31 03:30,3"),
        2,
        "data.csv: line 3: column time: '2024-03-31 02:30' is no time in Europe/Berlin: its clocks were set forward "
        "over it\n"
        "data.csv: 1 of 4 lines could not be read and was left out",
        1,
        " --zone Europe/Berlin",
    ),
    case(
        TIMES,
        "an hour that is there twice",
        wide(
            "time,a",
            *(f"2024-10-27 {h},{i}" for i, h in enumerate(("01:30", "02:00", "02:30", "02:00", "02:30", "03:00"))),
        ),
        6,
        more=" --zone Europe/Berlin",
    ),
    case(TIMES, "a leap second", wide("time,a", "2016-12-31T23:59:60Z,1", "2017-01-01T00:01:00Z,2"), 2),
    case(
        TIMES,
        "years 1 and 9999",
        wide("time,a", "0001-01-01T00:00:00Z,1", "9999-12-31T23:59:59Z,2", "2024-05-01,3"),
        1,
        "data.csv: line 2: column time: '0001-01-01T00:00:00Z' is no time\n"
        "data.csv: line 3: column time: '9999-12-31T23:59:59Z' is no time\n"
        "data.csv: 2 of 4 lines could not be read and were left out",
        1,
    ),
    case(TIMES, "before 1970", wide("ts,a", "-86400,1", "-82800,2"), 2),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hold(case, forecast(case, tmp_path, monkeypatch, capsys))
