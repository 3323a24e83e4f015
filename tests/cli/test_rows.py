"""Readings that are put together to rows again."""

from __future__ import annotations

from collections.abc import Iterator

from streamer.sensors.columns import Reading
from streamer.sources.readings import Columns, Readings
from streamer.sources.rows import Row, rows


def read(text: str, columns: Columns, count: int = 0) -> list[Row]:
    return list(rows(Readings("-", columns, print, text.encode()), count))


def test_a_line_of_a_table_is_a_row() -> None:
    text = "time,a,id\n2026-01-01,1,2\n2026-01-01,3,4\n2026-01-02,,5\n"
    found = read(text, Columns(wide=True))
    assert [row.values for row in found] == [{"a": 1, "id": 2}, {"a": 3, "id": 4}, {"a": None, "id": 5}]
    assert found[0].time == found[1].time == found[2].time - 86400


def test_objects_of_one_time_are_a_row_and_whole_rows_come_at_once() -> None:
    lines = ['{"ts":1,"a":1}', '{"ts":1,"b":2}', '{"ts":2,"a":3,"c":9}', '{"ts":3,"b":4,"a":5}']
    columns = Columns(values=("a", "b"), wide=True)
    found = read("\n".join(lines), columns)
    assert found == [Row(1, {"a": 1, "b": 2}), Row(2, {"a": 3}), Row(3, {"a": 5, "b": 4})]

    def told() -> Iterator[Reading]:
        yield Reading("a", 1.0, 1.0)
        yield Reading("b", 1.0, 2.0)
        raise AssertionError("the row was there")

    assert next(iter(rows(told(), 2))) == Row(1.0, {"a": 1.0, "b": 2.0})


def test_rows_without_times_are_told_apart_by_their_columns() -> None:
    assert [row.values["a"] for row in read("a,b\n1,2\n3,4\n5,6\n", Columns())] == [1, 3, 5]
