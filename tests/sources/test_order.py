"""Readings in the order of time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sensors.columns import Reading
from streamer.sources import SourceError
from streamer.sources.tables.order import descend, in_order, sorted_order


def ordered(
    readings: list[tuple[str, float | None]], most: int = 100
) -> tuple[list[tuple[str, float | None]], list[str]]:
    said: list[str] = []
    found = in_order([Reading(name, at, 1.0) for name, at in readings], said.append, most)
    return [(reading.stream, reading.time) for reading in found], said


@given(st.permutations(range(12)))
def test_what_is_shuffled_is_sorted_and_told(order: list[int]) -> None:
    found, said = ordered([("a", float(at)) for at in order])
    assert found == [("a", float(at)) for at in range(12)]
    assert len(said) == (order != sorted(order))


def test_streams_one_after_the_other_stay_as_they_are() -> None:
    readings: list[tuple[str, float | None]] = [("a", 1.0), ("a", 2.0), ("b", 1.0), ("b", 2.0), ("a", 3.0)]
    assert ordered(readings) == (readings, [])
    assert ordered([("a", None), ("a", None)]) == ([("a", None)] * 2, [])


def test_what_descends_is_said_to() -> None:
    assert ordered([("a", 3.0), ("a", 2.0), ("a", 1.0)])[1] == ["the lines descend: sorted"]


def test_a_glitch_of_a_clock_is_left_where_it_is() -> None:
    times = [float(at) for at in range(40)]
    times[20] = 500.0
    readings: list[tuple[str, float | None]] = [("a", at) for at in times]
    assert ordered(readings) == (readings, [])
    assert sorted_order(["a", "a", "a", "a"], np.array([1.0, 3, 2, 4])) is not None


def test_more_than_can_be_sorted_are_refused_and_in_order_they_flow() -> None:
    with pytest.raises(SourceError, match="are more than 5"):
        ordered([("a", float(-at)) for at in range(10)], 5)
    readings: list[tuple[str, float | None]] = [("a", float(at)) for at in range(20)]
    assert ordered(readings, 5) == (readings, [])


def test_a_few_late_readings_are_no_disorder() -> None:
    readings: list[tuple[str, float | None]] = [("a", float(at)) for at in range(100)]
    readings.insert(60, ("a", 10.5))
    assert ordered(readings, 200) == (readings, [])


def test_the_newest_first() -> None:
    assert descend(["a", "b", "a", "b", "a"], np.array([3.0, 9, 2, 8, 1]))
    assert not descend(["a", "a", "a"], np.array([3.0, 1, 4]))
    assert not descend(["a", "a"], np.array([3.0, 1]))
    assert not descend(["a"] * 3, np.array([np.nan] * 3))
