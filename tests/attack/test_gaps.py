"""A small share of the attack, on the smaller model; how fast answers came is the command's affair."""

from __future__ import annotations

import pytest

from bench.attack import Scale
from bench.attack.gaps import differences, run

pytestmark = pytest.mark.long

SPEED = {"slowest of these answers", "SIGTERM to the end"}


def test_one_sensor_with_gaps_costs_no_other_one_anything() -> None:
    rows = list(run(Scale(0.06), model="forecast-online", drain=1.0, rounds=1))
    assert len(rows) == 7
    assert [row for row in rows if not row.held and row.what not in SPEED] == []


def test_a_difference_is_found() -> None:
    assert differences({"a": [1.0, {"b": None}]}, {"a": [1.0005, {"b": None}]}) == []
    assert differences({"a": [1.0]}, {"a": [1.5]}) == ["/a/0: 1.0 and 1.5"]
    assert len(differences({"a": 1, "b": 2}, {"a": 2})) == 2
