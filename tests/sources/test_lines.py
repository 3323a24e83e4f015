"""Bytes to lines, lines to fields, fields to columns."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sources import SourceError
from streamer.sources.readings import Readings
from streamer.sources.tables.encoding import Lines, TooLongError, no_text
from streamer.sources.tables.layouts import Columns, guess_columns, key, suggested
from streamer.sources.tables.separators import Dialect, choose, declared_separator, find_header, is_comment, split
from streamer.sources.times import show_time

TEXTS = st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20), max_size=20)


def lines(data: bytes, most: int = 100) -> list[str]:
    source = Lines(io.BufferedReader(io.BytesIO(data)), most)
    found = []
    while True:
        try:
            line = source.next()
        except TooLongError:
            found.append("!")
            continue
        if line is None:
            return found
        found.append(line)


@given(TEXTS, st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_lines_in_every_encoding_and_with_every_end(texts: list[str], end: str, encoding: str) -> None:
    texts = ["a", *texts]
    data = "".join(text + end for text in texts).encode(encoding)
    assert lines(data, 10_000) == texts


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_is_known_by_its_zeros(encoding: str) -> None:
    assert lines("time,temp\n1,20.4\n".encode(encoding)) == ["time,temp", "1,20.4"]


def test_bytes_that_are_not_utf8_are_read_as_cp1252_and_told() -> None:
    source = Lines(io.BufferedReader(io.BytesIO("a\nGrüße 5 °C €\n".encode("cp1252") + "ä".encode())))
    assert [source.next() for _ in range(3)] == ["a", "Grüße 5 °C €", "ä"]
    assert (source.foreign, source.first_foreign) == (1, (2, "Grüße 5 °C €"))


def test_a_line_that_is_too_long_costs_itself() -> None:
    assert lines(b"a\n" + b"x" * 101 + b"\nb\n" + b"y" * 10**6 + b"\nc") == ["a", "!", "b", "!", "c"]


def test_a_pipe_is_read_as_it_comes() -> None:
    read, write = os.pipe()
    with open(read, "rb") as file:
        source = Lines(file)
        for text in (b"a\r\n", b"b\r", b"\nc\n"):
            os.write(write, text)
        os.close(write)
        assert [source.next() for _ in range(4)] == ["a", "b", "c", None]
    assert source.number == 3


@pytest.mark.parametrize("head", [b"PK\x03\x04", b"PAR1", b"%PDF-1.4", b"\x28\xb5\x2f\xfd", b"SQLite format 3\0"])
def test_what_is_no_text_has_its_name(head: bytes) -> None:
    assert no_text(head)
    assert not no_text(b"time,value")


@pytest.mark.parametrize(
    ("text", "separator"),
    [
        ("time,a\n1,2", ","),
        ("time;a\n1;2,5", ";"),
        ("a, b;time\n20,4;1", ";"),
        ("time\ta\n1\t2", "\t"),
        ("time|a\n1|2", "|"),
        ("value\n1\n2", ","),
        ("date time a\n2024-05-01 10:00 5", " "),
        ('"a;b","c"\n1,2\n3,4', ","),
    ],
)
def test_separators(text: str, separator: str) -> None:
    assert choose(text.splitlines()) == Dialect(separator)


def test_lines_in_quotes() -> None:
    dialect = choose(['"time,a"', '"1,2"'])
    assert dialect == Dialect(",", wrapped=True)
    assert split('"1,2"', dialect) == ["1", "2"]


@pytest.mark.parametrize(("widths", "at"), [([2, 2, 2], 0), ([3, 2, 3, 4], 0), ([1, 2, 3, 3, 3], 2), ([1, 1, 1], 0),
                                            ([2, 3, 3, 3], 0), ([1, 3, 3], 1), ([5], 0)])  # fmt: skip
def test_the_line_of_the_header(widths: list[int], at: int) -> None:
    assert find_header(widths) == at


def test_small_signs() -> None:
    assert (
        declared_separator("sep=;"),
        declared_separator('"sep=,"'),
        declared_separator("sep=\t"),
        declared_separator("time;a"),
    ) == (
        ";",
        ",",
        "\t",
        "",
    )
    assert is_comment("# a")
    assert not is_comment("#,time,a")
    assert key("Time (UTC)") == key("time") == "time"
    assert key("_time") == "_time"
    assert suggested(["2024-05-01", "roof", "20", "5"]) == "time,id,value,value2"


def test_roles_of_columns() -> None:
    days = [f"2024-05-0{day}" for day in range(1, 7)]
    rows = [[str(at), day, "a", "1"] for at, day in enumerate(days)]
    roles = guess_columns(["id", "date", "place", "t"], Columns(), rows)
    assert (roles.time, roles.ids, roles.left) == ((1,), (), {"id": "it numbers the lines"})
    roles = guess_columns(["id", "date", "place", "t"], Columns(id="place", time="date"), rows)
    assert (roles.ids, roles.values) == ((2,), {0: "id", 3: "t"})
    with pytest.raises(SourceError, match="has no column 'x': there are a, b"):
        guess_columns(["a", "b"], Columns(values=("x",)), [])
    both = [["2024-05-01", "10:00", "1"], ["2024-05-01", "11:00", "2"]]
    assert guess_columns(["Date", "Time", "a"], Columns(), both).time == (0, 1)


@pytest.mark.parametrize("stations", [("A", "B"), ("1", "2")])
def test_two_series_under_one_name_are_refused_unless_something_else_is_known(stations: tuple[str, str]) -> None:
    rows = [[f"2024-05-0{day}", station, f"{day}.5"] for day in range(1, 5) for station in stations]
    with pytest.raises(SourceError, match="column 'where' distinguishes them"):
        guess_columns(["date", "where", "t"], Columns(), rows)
    assert guess_columns(["date", "where", "t"], Columns(id="where"), rows).ids == (1,)
    with pytest.raises(SourceError, match="--id sensor --id where"):
        guess_columns(["date", "sensor", "where", "t"], Columns(), [[day, "x", place, t] for day, place, t in rows])


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([["45413", "0.5", "1"], ["45413", "0.75", "2"]], "2024-05-01T12:00:00Z"),
        ([["2024-05-01", "930", "1"], ["2024-05-01", "1000", "2"]], "2024-05-01T09:30:00Z"),
        ([["20240501", "0", "1"], ["20240501", "30", "2"]], "2024-05-01T00:00:00Z"),
        ([["13/05/2024", "9:30 PM", "1"], ["14/05/2024", "1:00 AM", "2"]], "2024-05-13T21:30:00Z"),
    ],
)
def test_a_date_and_what_may_stand_beside_it(rows: list[list[str]], first: str) -> None:
    text = "\n".join(map(",".join, [["date", "time", "a"], *rows]))
    found = list(Readings("x", Columns(), lambda text: None, text.encode()))
    assert [reading.stream for reading in found] == ["a", "a"]
    assert found[0].time is not None
    assert show_time(found[0].time) == first
