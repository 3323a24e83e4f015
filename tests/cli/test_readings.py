"""Readings out of CSV and NDJSON: guesses, names, missing values, and lines that can't be read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.sensors.columns import Reading
from streamer.sources import SourceError
from streamer.sources.readings import LINE_BYTES, SHOWN, Columns, Readings

Rows = list[tuple[str, float | None, float | None]]
ANY_FILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def read(folder: Path, data: str | bytes, **named: object) -> tuple[Rows, list[str], Readings]:
    path = folder / "data"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    said: list[str] = []
    source = Readings(str(path), Columns(**named), said.append)  # type: ignore[arg-type]
    try:
        rows = [(r.stream, r.time, r.value) for r in source]
    finally:
        source.close()
    return rows, said, source


def values(folder: Path, data: str | bytes, **named: object) -> Rows:
    rows, said, source = read(folder, data, **named)
    assert (said, source.bad) == ([], 0)
    return rows


@pytest.mark.parametrize("text", ["date,HUFL,OT\n2016-07-01 00:00:00,5.8,30\n", "date;HUFL;OT\r\n20160701;5,8;30\r\n",
                                  "\ufeffHUFL\tdate\tOT\n5.8\t2016-07-01T02:00+02:00\t3e1"])  # fmt: skip
def test_a_wide_table(tmp_path: Path, text: str) -> None:
    assert values(tmp_path, text) == [("HUFL", 1467331200, 5.8), ("OT", 1467331200, 30)]
    assert values(tmp_path, gzip.compress(text.encode())) == values(tmp_path, text)
    assert values(tmp_path, text, values=("OT",)) == [("OT", 1467331200, 30)]


def test_a_long_table(tmp_path: Path) -> None:
    text = "sensor,ts,reading\npump1,1630424257,73.9\n pump 2 ,1630424257000,NA\n\n"
    assert values(tmp_path, text) == [("pump1", 1630424257, 73.9), ("pump 2", 1630424257, None)]
    two = "id,ts,a,b\nx,1,2,3\n"
    assert values(tmp_path, two) == [("x.a", 1, 2), ("x.b", 1, 3)]
    assert values(tmp_path, two, values=("b",)) == [("x", 1, 3)]
    assert values(tmp_path, two, id="b", time="a") == [("3.ts", 2, 1)]


@pytest.mark.parametrize(
    ("named", "missing"),
    [({"time": "when"}, "has no time (when)"), ({"id": "plant"}, "has no name (plant)"),
     ({"id": ("site", "plant")}, "has no name (site, plant)"), ({"values": ("rpm",)}, "has no value (rpm)")],
)  # fmt: skip
def test_a_record_without_a_key_that_was_named_is_a_bad_line(
    tmp_path: Path, named: dict[str, str | tuple[str, ...]], missing: str
) -> None:
    whole = {"ts": 2, "when": 2, "id": "a", "site": "s", "plant": "p", "value": 4, "rpm": 5}
    bare = {"ts": 1, "id": "a", "site": "s", "value": 3}
    null = bare | {"plant": None}
    for records in ([bare, whole], [whole, bare, whole], *([[null, whole]] if "id" in named else [])):
        rows, said, source = read(tmp_path, "".join(json.dumps(each) + "\n" for each in records), **named)
        assert rows
        assert {time for _, time, _ in rows} == {2}
        assert source.bad == 1
        assert missing in said[0]


def test_ndjson(tmp_path: Path) -> None:
    text = '{"ts":1630424257.0,"id":"pump1","temperature":73.9,"state":"on"}\n{"ts":1630424258,"value":null}\n'
    assert values(tmp_path, text) == [("pump1.temperature", 1630424257, 73.9), ("value", 1630424258, None)]
    more = '{"when":"2021-08-31T15:37:37Z","id":7,"temperature":"NaN","rpm":NaN}\n'
    assert values(tmp_path, more, time="when", values=("temperature",)) == [("7", 1630424257, None)]


@pytest.mark.parametrize("cell", ["", "NA", "NaN", "null", "Inf", "-inf", "1e39", " "])
def test_missing(tmp_path: Path, cell: str) -> None:
    assert values(tmp_path, f"ts,a\n1,5\n2,{cell}\n") == [("a", 1, 5), ("a", 2, None)]


def test_no_times(tmp_path: Path) -> None:
    rows, said, source = read(tmp_path, "a,b\n1,2\n")
    assert (rows, said, source.timed) == ([("a", None, 1), ("b", None, 2)], [], False)
    _, _, source = read(tmp_path, '{"a":1}\n{"a":2,"ts":3}\n')
    assert (source.timed, source.bad) == (False, 1)


def test_columns_of_words_are_passed_over_when_they_are_guessed(tmp_path: Path) -> None:
    text = "ts,place,a\n1,,5\n2,roof,6\n3,,7\n"
    assert values(tmp_path, text) == [("a", 1, 5), ("a", 2, 6), ("a", 3, 7)]
    _, said, _ = read(tmp_path, text, values=("place",))
    assert said == [f"{tmp_path}/data: line 3: column place: 'roof' is no number"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"2,1", "has 2 fields, the header has 3"),
        (b"2,1,2,3", "has 4 fields, the header has 3"),
        (b"soon,1,2", "column ts: 'soon' is no time"),
        (b",1,2", "column ts: '' is no time"),
        (b'2,"1,2', "a quote is never closed"),
        (b'2,"1"x,2', "a quoted field goes on behind its closing quote: a quote inside a field is written twice"),
        (b"2," + b"1" * LINE_BYTES + b",1", f"is longer than {LINE_BYTES} bytes"),
    ],
)
def test_a_bad_line_is_told_and_left_out(tmp_path: Path, line: bytes, problem: str) -> None:
    rows, said, source = read(tmp_path, b"ts,a,b\n1,1,1\n" + line + b"\n3,3,3\n")
    assert rows == [("a", 1, 1), ("b", 1, 1), ("a", 3, 3), ("b", 3, 3)]
    assert (said, source.bad) == ([f"{tmp_path}/data: line 3: {problem}"], 1)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (b"x", "'x'"),
        (b"1_0", "'1_0'"),
        (b"0x1F", "'0x1F'"),
        (b"\xff", "'\u00ff'"),
        (b"\0", "'\\x00'"),
        (b"1 2", "'1 2'"),
    ],
)
def test_a_bad_cell_costs_itself_alone(tmp_path: Path, cell: bytes, shown: str) -> None:
    rows, said, source = read(tmp_path, b"ts,a,b\n1,1,1\n2," + cell + b",2\n3,3,3\n")
    assert rows == [("a", 1, 1), ("b", 1, 1), ("b", 2, 2), ("a", 3, 3), ("b", 3, 3)]
    assert said == [f"{tmp_path}/data: line 3: column a: {shown} is no number"]
    assert (source.bad, source.cells) == (0, 1)


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "3", '{"ts":1}', '{"ts":[1],"a":1}', '{"ts":true,"a":1}', '{"a":1}', '{"ts":2,"id":"","a":1}',
     '{"ts":2,"a":' + "9" * 400 + "}", '{"ts":2,"a":' + "[" * 100_000 + "}"],
    ids=lambda line: line[:20],
)  # fmt: skip
def test_a_bad_object_is_told_and_left_out(tmp_path: Path, line: str) -> None:
    rows, said, source = read(tmp_path, '{"ts":1,"a":1}\n' + line + '\n{"ts":3,"a":3}\n')
    assert rows == [("a", 1, 1), ("a", 3, 3)]
    assert (len(said), source.bad + source.cells) == (1, 1)
    assert "line 2: " in said[0]


def test_many_bad_lines_are_told_once(tmp_path: Path) -> None:
    rows, said, source = read(tmp_path, "ts,a\n" + "x,1\n" * 500 + "1,1\n")
    assert (rows, source.bad, len(said)) == ([("a", 1, 1)], 500, SHOWN + 1)


def test_a_file_that_was_cut_off_gives_what_is_there(tmp_path: Path) -> None:
    whole = gzip.compress("".join(["ts,a\n", *(f"{i},{i * 7919 % 1000}\n" for i in range(20000))]).encode())
    rows, said, source = read(tmp_path, whole[: len(whole) // 2])
    assert len(rows) > 1000
    assert (source.bad, len(said)) == (1, 1)


@pytest.mark.parametrize("data", ["", "\n\n", "1,2\n3,4\n", "ts\n1\n", "ts,a,a\n1,2,3\n"])
def test_nothing_to_read(tmp_path: Path, data: str) -> None:
    with pytest.raises(
        SourceError,
        match=r"data: (is empty|no header: give --columns value,value2 |has no column of values|the column 'a')",
    ):
        read(tmp_path, data)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="has no column 'c': there are ts, a"):
        read(tmp_path, "ts,a\n1,2\n", values=("c",))
    with pytest.raises(SourceError, match="no such file"):
        Readings(str(tmp_path / "none"), Columns(), print)


def test_a_header_with_an_open_quote_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 1 is not a header"):
        read(tmp_path, b'"time,value\n1,2\n')


@ANY_FILE
@given(st.binary(max_size=300))
def test_no_file_brings_it_down(tmp_path: Path, data: bytes) -> None:
    for start in (b"", b"ts,a\n", b'{"ts":1,"a":1}\n'):
        try:
            rows, _, source = read(tmp_path, start + data)
        except SourceError:
            continue
        assert source.bad <= source.lines + 1  # the file itself, if its compression is damaged
        assert all(value is None or abs(value) < 1e30 for _, _, value in rows)


CELLS = st.one_of(st.none(), st.floats(-1e6, 1e6))


@ANY_FILE
@given(st.lists(st.tuples(st.sampled_from("pqr"), CELLS), min_size=1, max_size=20))
def test_both_formats_say_the_same(tmp_path: Path, rows: list[tuple[str, float | None]]) -> None:
    table = ["ts,id,value", *(f"{t},{id},{'' if v is None else repr(v)}" for t, (id, v) in enumerate(rows))]
    lines = [json.dumps({"ts": t, "id": id, "value": v}) for t, (id, v) in enumerate(rows)]
    wanted = [(id, t, v) for t, (id, v) in enumerate(rows)]
    begun = next((t for t, (_, v) in enumerate(rows) if v is not None), len(rows))  # then the column holds numbers
    assert values(tmp_path, "\n".join(table)) == wanted[begun:]
    assert values(tmp_path, "\n".join(lines)) == wanted


def test_a_reading_is_small() -> None:
    assert not hasattr(Reading("a", 1.0, 2.0), "__dict__")


def test_a_comment_that_is_no_header_and_no_quote_is_passed_over(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no header: give --columns value,value2"):
        read(tmp_path, '# "a"b, c\n1,2\n')


@pytest.mark.parametrize(
    "line",
    ["2024-05-01 00:00 1 2", "2024-05-01T00:00 1", "01/05/2024 1", "01.05.2024 1", "12:00 1", "a 1 2", "May 1 00:00 3"],
)
def test_the_line_of_a_table_is_no_topic(line: str) -> None:
    source = Readings("-", Columns(), lambda text: None, f"{line}\n{line}\n".encode(), plain=True)
    with pytest.raises(SourceError, match="no header: give --columns"):
        list(source)


@pytest.mark.parametrize("topic", ["pump", "pump1", "home/t", "living room/t", "room 1/t", "/a/1", "zigbee2mqtt/0x00"])
def test_a_topic_is_a_stream(topic: str) -> None:
    source = Readings("-", Columns(), lambda text: None, f"{topic} 20.4\n{topic} 20.5\n".encode(), plain=True)
    assert {reading.stream for reading in source} == {topic}
