"""Tables: what people have in CSV, and what ``streamer forecast`` makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inputs.cases import Case, hold
from tests.inputs.inside import forecast

ORDER = 3.0
ABOUT = {
    "Tables: text": "UTF-8 and UTF-16, with and without a byte order mark, and cp1252; every end of a line; separators"
    " `,` `;` tab `|` and blanks. One cell that can't be read costs itself, and the exit code is 1 (`--lenient`: 0).",
    "Tables: columns": "A header names the columns, or `--columns`. Time and stream are known by the names that tools"
    " write. A file is put into the order of time, up to 1,000,000 readings, where more than 2 % of"
    " them are late; a pipe is read as it comes.",
    "Tables: numbers": "A number is read where it can mean one thing only, else `--decimal` is asked for.",
}
HOURS = [f"2024-05-01 {hour:02}:00" for hour in range(12)]
TABLE = "time,temp\n" + "".join(f"{at},{20 + 0.5 * (i % 3)}\n" for i, at in enumerate(HOURS))


def text(said: str, encoding: str = "utf-8") -> Callable[[Path], object]:
    return lambda folder: (folder / "data.csv").write_bytes(said.encode(encoding))


def raw(said: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "data.csv").write_bytes(said)


def wide(header: str, *rows: str) -> Callable[[Path], object]:
    return text("\n".join([header, *rows, ""]))


def column(*cells: str, header: str = "time,temp") -> Callable[[Path], object]:
    return wide(header, *(f"{at},{cell}" for at, cell in zip(HOURS, cells, strict=False)))


def case(
    source: str, name: str, make: Callable[[Path], object], readings: int, says: str = "", exit: int = 0, more: str = ""
) -> Case:
    """``readings``: lines of ``--json``; -1: refused."""
    outcome = "refused" if readings < 0 else f"{readings} readings" if readings != 1 else "1 reading"
    said = "\n".join(f"streamer: {line}" for line in says.splitlines())
    command = f"streamer forecast data.csv --json{more} | wc -l"
    return Case(name, source, command, outcome, make, exit, said, str(max(0, readings)))


TEXT, COLUMNS, NUMBERS = ABOUT
CASES = (
    case(TEXT, "UTF-8 with a byte order mark", text(TABLE, "utf-8-sig"), 12),
    case(TEXT, "UTF-16 with a byte order mark", text(TABLE, "utf-16"), 12, "data.csv: read as UTF-16"),
    case(TEXT, "UTF-16 without one", text(TABLE, "utf-16-le"), 12, "data.csv: read as UTF-16"),
    case(
        TEXT,
        "cp1252, in the header",
        text(TABLE.replace("temp", "Temp °C"), "cp1252"),
        12,
        "data.csv: 1 line is not UTF-8, read as cp1252, the first: line 1, 'Temp °C'",
    ),
    case(
        TEXT,
        "UTF-8 with a stray byte of cp1252",
        raw(TABLE.encode() + b"2024-05-01 12:00,\xb5\n"),
        12,
        "data.csv: line 14: column temp: 'µ' is no number\n"
        "data.csv: 1 line is not UTF-8, read as cp1252, the first: line 14, 'µ'\n"
        "data.csv: 1 cell could not be read and was left out",
        1,
    ),
    case(TEXT, "lines that end with CR", text(TABLE.replace("\n", "\r")), 12),
    case(TEXT, "lines that end with CR LF", text(TABLE.replace("\n", "\r\n")), 12),
    case(TEXT, "tabs", text(TABLE.replace(",", "\t")), 12),
    case(TEXT, "a spreadsheet's `sep=;`", text("sep=;\n" + TABLE.replace(",", ";")), 12),
    case(
        TEXT,
        "comments",
        text("# logger 5\n" + TABLE + "# end\n"),
        12,
        "data.csv: 2 lines with comments (#) left out, the first: line 1",
    ),
    case(
        TEXT, "a header with an end of a line in quotes", wide('time,"temp\n(C)"', "2024-05-01,20", "2024-05-02,21"), 2
    ),
    case(
        TEXT,
        "a field with an end of a line in quotes",
        wide("time,note,a", '2024-05-01,"x\ny",1', "2024-05-02,z,2"),
        2,
        "data.csv: columns left out: note (words, such as 'x')",
    ),
    case(
        TEXT,
        "a quote that is never closed",
        wide("time,a", '2024-05-01,"1', "2024-05-02,2"),
        1,
        "data.csv: line 2: a quote is never closed\ndata.csv: 1 of 3 lines could not be read and was left out",
        1,
    ),
    case(
        TEXT,
        "a workbook",
        raw(b"PK\x03\x04\x14\0"),
        -1,
        "data.csv: is a zip archive or a spreadsheet (xlsx, ods): unpack it, or save the sheet as CSV",
        2,
    ),
    case(TEXT, "an empty file", text(""), -1, "data.csv: is empty", 2),
    case(
        TEXT,
        "a header and nothing else",
        text("time,temp\n"),
        -1,
        "data.csv: no reading was found: there is no value below the header (time, temp)",
        2,
    ),
    case(
        TEXT,
        "InfluxDB's line protocol",
        text("air,room=a temp=20 1700000000\n"),
        -1,
        "data.csv: is InfluxDB's line protocol: POST it to /api/v2/write of streamer serve",
        2,
    ),
    # -- columns
    case(
        COLUMNS,
        "no header",
        wide("2024-05-01 00:00,20.4", "2024-05-01 01:00,20.5"),
        -1,
        "data.csv: no header: give --columns time,value (line 1 holds '2024-05-01 00:00', which names no column)",
        2,
    ),
    case(
        COLUMNS,
        "no header, but names",
        wide("2024-05-01 00:00,20.4", "2024-05-01 01:00,20.5"),
        2,
        more=" --columns time,temp",
    ),
    case(
        COLUMNS,
        "a name twice",
        wide("time,t,t", "2024-05-01,1,2"),
        -1,
        "data.csv: the column 't' is there twice: --columns gives each a name of its own",
        2,
    ),
    case(
        COLUMNS,
        "thousands of columns",
        wide("time," + ",".join(f"c{i}" for i in range(900)), "2024-05-01" + ",1" * 900),
        900,
    ),
    case(COLUMNS, "separators at the end of the lines", wide("time,a,", "2024-05-01,1,", "2024-05-02,2"), 2),
    case(
        COLUMNS,
        "rows of other lengths",
        wide("time,a,b", "2024-05-01,1", "2024-05-02,1,2"),
        2,
        "data.csv: line 2: has 2 fields, the header has 3\ndata.csv: 1 of 3 lines could not be read and was left out",
        1,
    ),
    case(
        COLUMNS,
        "a column of words",
        wide("time,place,a", "2024-05-01,roof,1", "2024-05-02,roof,2"),
        2,
        "data.csv: columns left out: place (words, such as 'roof')",
    ),
    case(COLUMNS, "on and off", wide("time,door", "2024-05-01,on", "2024-05-02,off"), 2, more=" --value door"),
    case(
        COLUMNS,
        "on and off beside numbers",
        wide("time,door,a", "2024-05-01,on,1", "2024-05-02,off,2"),
        2,
        "data.csv: columns left out: door (words, such as 'on'; --value door reads it as 1 and 0)",
    ),
    case(
        COLUMNS,
        "a header in the middle",
        text(TABLE[: TABLE.index("2024-05-01 06")] + TABLE[:10] + TABLE[TABLE.index("2024-05-01 06") :]),
        12,
        "data.csv: 1 line that repeats the header left out, the first: line 8",
    ),
    case(
        COLUMNS,
        "another header in the middle",
        text(TABLE + "time,hum\n2024-05-01 12:00,50\n"),
        13,
        "data.csv: line 14 is another header: time, hum",
    ),
    case(
        COLUMNS,
        "units below the header",
        wide("time,a", ",°C", "2024-05-01,1"),
        1,
        "data.csv: 1 line below the header, without a time or a number, left out, the first: line 2: ',°C'",
    ),
    case(
        COLUMNS,
        "titles above the header",
        wide("Logger 5", "", "time,a", "2024-05-01,1", "2024-05-02,2"),
        2,
        "data.csv: 1 line above the header left out, the first: line 1: 'Logger 5'",
    ),
    case(
        COLUMNS,
        "a sum below the table",
        wide("time,a", "2024-05-01,1", "2024-05-02,2", "Total,3"),
        2,
        "data.csv: line 4: column time: 'Total' is no time\ndata.csv: 1 of 4 lines could not be read and was left out",
        1,
    ),
    case(
        COLUMNS,
        "two sensors under one name",
        wide("date,station,t", *(f"2024-05-0{d},{s},{d}" for d in (1, 2) for s in "AB")),
        -1,
        "data.csv: several lines have the time '2024-05-01', and column 'station' distinguishes them (A and B): "
        "--id station",
        2,
    ),
    case(
        COLUMNS,
        "the same, with a name for each",
        wide("date,station,t", *(f"2024-05-0{d},{s},{d}" for d in (1, 2) for s in "AB")),
        4,
        more=" --id station",
    ),
    case(COLUMNS, "pandas, with its index", wide(",a", "2024-05-01,1", "2024-05-02,2"), 2),
    case(
        COLUMNS,
        "pandas, with numbered rows",
        wide(",time,a", "0,2024-05-01,1", "1,2024-05-02,2"),
        2,
        "data.csv: columns left out: number 1 (it numbers the lines)",
    ),
    case(COLUMNS, "Nixtla", wide("unique_id,ds,y", "A,2024-05-01,1", "A,2024-05-02,2", "B,2024-05-01,3"), 3),
    case(
        COLUMNS,
        "Home Assistant",
        wide(
            "entity_id,state,last_changed",
            "sensor.t,20.4,2024-05-01T00:00:00.000Z",
            "sensor.t,unavailable,2024-05-01T00:01:00.000Z",
            "binary_sensor.door,on,2024-05-01T00:00:00.000Z",
        ),
        3,
    ),
    case(
        COLUMNS,
        "ThingSpeak",
        wide("created_at,entry_id,field1", "2024-05-01 00:00:00 UTC,1,20.4", "2024-05-01 00:01:00 UTC,2,20.5"),
        2,
        "data.csv: columns left out: entry_id (it numbers the lines)",
    ),
    case(
        COLUMNS,
        "InfluxDB, annotated, two tables",
        text(
            "#datatype,string,long,dateTime:RFC3339,double,string,string,string\n#group,false,false,false,false,true,true,true\n"
            "#default,_result,,,,,,\n,result,table,_time,_value,_field,_measurement,host\n"
            ",,0,2024-05-01T01:00:00Z,20.4,temp,air,a\n,,1,2024-05-01T01:00:00Z,50,hum,air,b\n\n"
            "#datatype,string,long,dateTime:RFC3339,double,string\n#group,false,false,false,false,true\n#default,_result,,,,\n"
            ",result,table,_time,_value,_field\n,,0,2024-05-01T02:00:00Z,7,x\n"
        ),
        3,
    ),
    case(
        COLUMNS,
        "lines that descend",
        wide("time,a", *(f"2024-05-0{d},{d}" for d in range(9, 0, -1))),
        9,
        "data.csv: the lines descend: sorted",
    ),
    case(
        COLUMNS,
        "shuffled lines",
        wide("time,a", *(f"2024-05-0{d},{d}" for d in (3, 1, 2, 5, 4, 9, 8, 7, 6))),
        9,
        "data.csv: the lines are not in the order of time: sorted",
    ),
    case(
        COLUMNS,
        "a reading twice",
        wide("time,a", "2024-05-01,1", "2024-05-02,2", "2024-05-02,3"),
        2,
        "data.csv: 1 duplicates left out",
    ),
    case(
        COLUMNS,
        "a reading two hours ahead",
        text("time,a\n" + "".join(f"{1714521600 + 60 * i + (7200 if i == 20 else 0)},{i % 5}\n" for i in range(60))),
        58,
        "a: an earlier reading had a time far ahead; the others go on at 2024-05-01T00:23:00Z\n"
        "data.csv: 120 steps without a reading, 2 late readings left out, 1 times that a clock was set back",
    ),
    # -- numbers
    case(NUMBERS, "words for no value, in the first row too", column("-", "20", "unknown", "NaN", "n/a", "?", "21"), 6),
    case(NUMBERS, "a number for no value", column("20", "-999", "21", "-999.0"), 4, more=" --missing -999"),
    case(
        NUMBERS,
        "a cell that is no number",
        column("20", "err", "21"),
        2,
        "data.csv: line 3: column temp: 'err' is no number\ndata.csv: 1 cell could not be read and was left out",
        1,
    ),
    case(
        NUMBERS,
        "one that is none beside one that is",
        wide("time,a,b", "2024-05-01,1,1", "2024-05-02,0x1F,2"),
        3,
        "data.csv: line 3: column a: '0x1F' is no number\ndata.csv: 1 cell could not be read and was left out",
        1,
    ),
    case(
        NUMBERS, "decimal commas, semicolons", wide("Zeit;Temp", "01.05.2024 10:00;20,4", "01.05.2024 11:00;1.234,5"), 2
    ),
    case(NUMBERS, "decimal commas in quotes", column('"20,4"', '"21,5"'), 2),
    case(
        NUMBERS,
        "decimal commas between commas",
        column("20,4", "21,5"),
        -1,
        "data.csv: line 2: has 3 fields, the header has 2: a decimal comma needs quotes around its number\n"
        "data.csv: line 3: has 3 fields, the header has 2: a decimal comma needs quotes around its number\n"
        "data.csv: 2 of 3 lines could not be read and were left out\n"
        "data.csv: no reading was found: no line and no cell could be read as one",
        2,
    ),
    case(
        NUMBERS,
        "1,234, and nothing that says what it is",
        column('"1,234"', "5"),
        1,
        "data.csv: line 2: column temp: '1,234' is 1.234 or 1234: say which with --decimal , or .\n"
        "data.csv: 1 cell could not be read and was left out",
        1,
    ),
    case(NUMBERS, "1,234, where the decimal mark is told", column('"1,234"', "5"), 2, more=" --decimal ."),
    case(NUMBERS, "thousands: 12 345,6 and 12'345.6", wide("time;p;q", "2024-05-01;12 345,6;12'345.6"), 2),
    case(NUMBERS, "units and per cent", column("20.4 °C", "21 °C"), 2),
    case(
        NUMBERS,
        "kW and W in one column",
        column("5 kW", "500 W"),
        1,
        "data.csv: line 3: column temp: '500 W' is in W, the cells before are in kW\n"
        "data.csv: 1 cell could not be read and was left out",
        1,
    ),
    case(NUMBERS, "a minus sign as typesetters use it", column("\u22125.5", "5"), 2),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hold(case, forecast(case, tmp_path, monkeypatch, capsys))
