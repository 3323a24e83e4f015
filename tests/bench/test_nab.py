"""Numenta's scoring rules, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.nab import PROFILES, Labelled, score, worth


def sigmoid(position: float) -> float:
    return 2 / (1 + math.exp(5 * position)) - 1


def series(rows: int, windows: list[tuple[int, int]]) -> Labelled:
    return Labelled("made", np.arange(float(rows)), np.zeros(rows), windows)


def test_an_alarm_is_worth_most_at_the_left_edge_and_less_than_nothing_far_behind() -> None:
    values, inside = worth(100, [(20, 29)])
    assert (inside >= 0).nonzero()[0].tolist() == list(range(20, 30))
    assert values[20] == pytest.approx(1.0)
    assert values[29] == pytest.approx(sigmoid(-0.1) / sigmoid(-1))
    assert values[19] == -1.0
    assert values[32] == pytest.approx(sigmoid(3 / 9))
    assert values[60] == -1.0


def test_null_is_0_and_perfect_is_100() -> None:
    one = series(100, [(30, 39), (70, 79)])
    quiet, perfect = np.zeros(100), np.zeros(100)
    perfect[[30, 70]] = 1.0
    for profile in PROFILES.values():
        assert score([one], [perfect], profile)[0] == pytest.approx(100)
        assert score([one], [quiet], profile)[0] == pytest.approx(0)
    assert score([one], [perfect], PROFILES["standard"])[1] == 1.0


def test_alarms_in_the_probation_count_for_nothing_and_false_ones_by_the_profile() -> None:
    one = series(100, [(50, 59)])
    found = np.zeros(100)
    found[5], found[40], found[50] = 3.0, 2.0, 1.0  # in the probation, false, at the left edge
    standard, low = (score([one], [found], PROFILES[name])[0] for name in ("standard", "low FP"))
    assert standard == pytest.approx(100 * (1 - 0.11 + 1) / 2)
    assert low == pytest.approx(100 * (1 - 0.22 + 1) / 2)


def test_the_best_of_several_alarms_in_a_window_counts_once() -> None:
    one = series(100, [(50, 59)])
    found = np.zeros(100)
    found[50:60] = 1.0
    assert score([one], [found], PROFILES["standard"])[0] == pytest.approx(100)
