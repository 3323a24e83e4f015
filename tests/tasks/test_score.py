"""Scores of forecasts: against the sums by hand, with missing readings, gaps, and in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.tasks.score import MOST, Score

VALUES = st.lists(st.one_of(st.none(), st.floats(-100, 100, width=16)), min_size=1, max_size=40)


def band(middle: float, horizon: int, width: float = 1.0) -> np.ndarray:
    rise = middle + 0.5 * np.arange(1, horizon + 1)
    return np.stack([rise - width, rise, rise + width])


@given(values=VALUES, horizon=st.integers(1, 6))
def test_it_is_the_sum_over_all_pairs(values: list[float | None], horizon: int) -> None:
    score = Score(horizon)
    for value in values:
        score.truth(value)
        if value is not None:
            score.said(band(value, horizon), value)
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
    found = score.summary()
    assert found.mae_first == (pytest.approx(np.mean(errors[0])) if errors[0] else None)
    mae, base = ([float(np.mean(e)) for e in each if e] for each in (errors, bases))
    assert found.mae_all == (pytest.approx(np.mean(mae)) if mae else None)
    assert found.mase_all == (pytest.approx(np.mean(mae) / np.mean(base)) if sum(base) else None)
    assert found.coverage == (pytest.approx(np.mean(inside)) if inside else None)


def test_what_was_open_before_a_break_is_never_settled() -> None:
    score = Score(3)
    score.truth(0.0)
    score.said(band(0.0, 3), 0.0)
    score.forget()
    for _ in range(3):
        score.truth(9.0)
    assert score.summary().mae_all is None


def test_memory_is_bounded_in_time_and_horizon() -> None:
    score = Score(4096)
    before = score.nbytes
    assert (len(score.steps), score.steps[0], score.steps[-1]) == (MOST, 1, 4096)
    for i in range(10_000):
        score.truth(float(i % 7))
        score.said(np.zeros((3, 4096)), float(i % 7))
    assert score.nbytes == before < 10 * 2**20
    assert Score(24).nbytes < 40_000
    assert score.summary().coverage == pytest.approx(1 / 7, abs=0.01)
