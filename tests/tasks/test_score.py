"""Scores of forecasts: against the sums by hand, with missing readings, gaps, and in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sensors.scores import MOST, WINDOW, Scores, Track

LEVELS = (0.05, 0.5, 0.95)

#: Quarters, so that their sums and differences are exact in float32: whether a value on the edge of a band is inside it
#: is not a matter of rounding.
QUARTERS = st.integers(-400, 400).map(lambda n: n / 4)
VALUES = st.lists(st.one_of(st.none(), QUARTERS), min_size=1, max_size=40)


class Score:
    """One stream, in a slot between others."""

    def __init__(self, horizon: int, levels: tuple[float, ...]) -> None:
        self.track = Track(3, horizon, levels)

    def truth(self, value: float | None, season: int = 0) -> None:
        self.track.truth(np.array([1]), np.array([np.nan if value is None else value]), np.array([season]))

    def said(self, quantiles: np.ndarray, last: float) -> None:
        """[quantiles][horizon]"""
        self.track.said(np.array([1]), quantiles.T[None], np.array([last]))

    def forget(self) -> None:
        self.track.forget(np.array([1]))

    def summary(self, *, late: bool = False) -> dict[str, Scores]:
        return self.track.summary(1, late=late)


def band(middle: float, horizon: int, width: float = 1.0) -> np.ndarray:
    rise = middle + 0.5 * np.arange(1, horizon + 1)
    return np.stack([rise - width, rise, rise + width])


def assert_alike(some: dict[str, Scores], others: dict[str, Scores]) -> None:
    """Of late ones the sums are float32."""
    assert list(some) == list(others)
    for key in some:
        assert numbers(some[key]) == pytest.approx(numbers(others[key]), rel=1e-4)


def numbers(scores: Scores) -> list[float]:
    found = (scores.mae, scores.mase, scores.pinball, scores.coverage)
    return [-1.0 if value is None else value for value in found]


@given(values=VALUES, horizon=st.integers(1, 6))
def test_it_is_the_sum_over_all_pairs(values: list[float | None], horizon: int) -> None:
    score = Score(horizon, LEVELS)
    for value in values:
        score.truth(value)
        if value is not None:
            score.said(band(value, horizon), value)
    pinball = []
    errors: list[list[float]] = [[] for _ in range(horizon)]
    bases: list[list[float]] = [[] for _ in range(horizon)]
    inside = []
    for made, last in enumerate(values):
        for ahead in range(1, horizon + 1):
            truth = values[made + ahead] if made + ahead < len(values) else None
            if last is not None and truth is not None:
                errors[ahead - 1].append(abs(truth - last - 0.5 * ahead))
                bases[ahead - 1].append(abs(truth - last))
                inside.append(errors[ahead - 1][-1] <= 1.0)
                off = [truth - q for q in band(last, horizon)[:, ahead - 1]]
                pinball.append(np.mean([max(p * o, (p - 1) * o) for p, o in zip(LEVELS, off, strict=True)]))
    found = score.summary()
    every = found["all"]
    assert found["1"].mae == (pytest.approx(np.mean(errors[0])) if errors[0] else None)
    mae, base = ([float(np.mean(e)) for e in each if e] for each in (errors, bases))
    assert every.mae == (pytest.approx(np.mean(mae)) if mae else None)
    assert every.mase == (pytest.approx(np.mean(mae) / np.mean(base)) if sum(base) else None)
    assert every.coverage == (pytest.approx(np.mean(inside)) if inside else None)
    if len(mae) == 1:
        assert every.pinball == pytest.approx(np.mean(pinball))
    assert_alike(score.summary(late=True), found)


def test_the_better_of_two_naive_forecasts_is_the_measure() -> None:
    """A sensor that repeats itself every 4 steps: as a day ago is nearly right, as now is wrong."""
    score = Score(6, LEVELS)
    rng = np.random.default_rng(0)
    values = 10 * np.sin(np.pi * np.arange(400) / 2) + rng.normal(size=400)
    for value in values:
        score.truth(float(value), season=4)
        score.said(band(float(value), 6), float(value))
    a_day = np.mean([np.mean(np.abs(values[k:] - values[:-k])) for k in (4, 4, 4, 4, 8, 8)])
    found = score.summary()["all"]
    assert found.mae is not None
    assert found.mase == pytest.approx(found.mae / a_day, rel=0.03)


def test_a_restless_first_day_is_no_reproach() -> None:
    """Each naive forecast is compared with ours of the same moments: there is none of a day ago on the first day."""
    score = Score(1, LEVELS)
    rng = np.random.default_rng(1)
    for i in range(240):
        score.truth(float(rng.normal()), season=24)
        off = 100.0 if i < 20 else 0.0
        score.said(np.array([[off - 1], [off], [off + 1]]), 50.0)  # persistence is told to have been far off
    found = score.summary()["all"]
    assert found.mae is not None
    assert found.mae > 5
    assert found.mase is not None
    assert found.mase < 1


def test_bands_and_what_was_long_ago() -> None:
    score = Score(30, LEVELS)
    for i in range(WINDOW + 800):
        score.truth(float(i) if i < 700 else 0.0)
        score.said(np.zeros((3, 30)), 1.0)
    assert list(score.summary()) == ["1", "2-6", "7-24", "25-30", "all"]
    assert score.summary()["1"].mae == pytest.approx(sum(range(1, 700)) / (WINDOW + 799), rel=1e-4)
    late = score.summary(late=True)
    assert late["1"] == Scores(0.0, 0.0, 0.0, 1.0)


def test_what_was_open_before_a_break_is_never_settled() -> None:
    score = Score(3, LEVELS)
    score.truth(0.0)
    score.said(band(0.0, 3), 0.0)
    score.forget()
    for _ in range(3):
        score.truth(9.0)
    assert score.summary()["all"].mae is None


def test_a_day_before_a_break_is_no_day_ago() -> None:
    score = Score(1, LEVELS)
    for value in (5.0, 6.0, 7.0, 8.0):
        score.truth(value, season=2)
        score.said(np.zeros((3, 1)), value + 50)  # persistence is told to be far off
    score.forget()
    for value in (70.0, 71.0):
        score.truth(value, season=2)
        score.said(np.array([[69.0], [70.0], [71.0]]), value + 50)
    assert score.summary()["all"].mase == pytest.approx((7 + 8) / (2 + 2))


@given(values=st.lists(VALUES, min_size=3, max_size=3), horizon=st.integers(1, 6))
def test_streams_do_not_know_of_each_other(values: list[list[float | None]], horizon: int) -> None:
    def step(track: Track, slots: list[int], now: list[float | None]) -> None:
        truths = np.array(now, np.float64)
        track.truth(np.array(slots), truths, np.full(len(slots), 3))
        if len(there := np.flatnonzero(~np.isnan(truths))):
            said = np.stack([band(truth, horizon).T for truth in truths[there]])
            track.said(np.array(slots)[there], said, truths[there])

    together, alone = Track(3, horizon, LEVELS), [Track(1, horizon, LEVELS) for _ in range(3)]
    for turn in range(40):
        slots = [slot for slot in range(3) if len(values[slot]) > turn]
        if slots:
            step(together, slots, [values[slot][turn] for slot in slots])
        for slot in slots:
            step(alone[slot], [0], [values[slot][turn]])
    for slot in range(3):
        assert together.summary(slot) == alone[slot].summary(0)
        again = Track(2, horizon, LEVELS)
        again.write(1, together.read(slot))
        assert again.summary(1) == together.summary(slot)


def test_memory_is_bounded_in_time_and_horizon() -> None:
    score = Score(4096, LEVELS)
    steps = score.track.steps
    assert (len(steps), steps[0], steps[-1]) == (MOST, 1, 4096)
    for i in range(10_000):
        score.truth(float(i % 7))
        score.said(np.zeros((3, 4096)), float(i % 7))
    assert score.track.bytes_per_slot < 10 * 2**20
    assert Track(1, 24, LEVELS, 8).bytes_per_slot < 20_000
    assert score.summary()["all"].coverage == pytest.approx(1 / 7, abs=0.01)
