"""The beam's own arithmetic, beside slower ways to say the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.tasks.transcribe import history
from streamer.tasks.transcribe.history import WordHistory
from streamer.tasks.transcribe.hypotheses import added, logadd

LEVELS = st.one_of(st.just(-np.inf), st.floats(-2000, 0))


@given(pairs=st.lists(st.tuples(LEVELS, LEVELS), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_logadd_is_logaddexp_and_does_not_depend_on_the_place(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T.copy()
    sums = logadd(a, b)
    assert sums == pytest.approx(np.logaddexp(a, b), rel=1e-12, abs=1e-12)
    assert sums.tolist() == [float(logadd(a[i : i + 1], b[i : i + 1])[0]) for i in range(len(pairs))]


@given(given=st.lists(st.tuples(st.floats(-900, 0), st.integers(0, 5)), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_scores_of_one_key_are_added(given: list[tuple[float, int]]) -> None:
    scores, keys = np.array([s for s, _ in given]), np.array([k for _, k in given], np.int64)
    expected = [np.logaddexp.reduce(scores[keys == key]) for key in keys]
    assert added(scores, keys) == pytest.approx(np.array(expected), rel=1e-12, abs=1e-12)


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 30), beam=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_hypotheses_share_the_words_that_their_chains_begin_with(seed: int, size: int, beam: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.zeros((size, 5), np.int64)
    table[:, history.PARENT] = [rng.integers(-1, entry) for entry in range(size)]
    entries = rng.integers(-1, size, beam).tolist()
    chains = [chain(table, entry) for entry in entries]
    shared = 0
    while all(len(c) > shared and c[shared] == chains[0][shared] for c in chains):
        shared += 1
    made = WordHistory.of(table)
    assert (made.table() == table).all()
    for known in range(shared + 1):
        assert made.common(set(entries), chains[0], known) == shared
    for other in chains:
        same, new = made.beyond(entries[0], other)
        assert other[:same] + new == chains[0]


def chain(table: NDArray[np.int64], entry: int) -> list[int]:
    return [*chain(table, int(table[entry, history.PARENT])), entry] if entry != history.NONE else []
