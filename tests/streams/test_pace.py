"""When chunks are due: live ones when they come, the others when they would have come."""

from __future__ import annotations

import pytest

from streamer.streams.pace import AHEAD, CREDIT, LIVE, Pace

CHUNK = 0.3


def test_live_chunks_are_due_when_they_come() -> None:
    pace = Pace(CHUNK)
    for i in range(1000):
        assert pace.due(100 + i * CHUNK) == 100 + i * CHUNK


@pytest.mark.parametrize("rate", [1.0, 1.001, 1.1])
def test_a_clock_that_is_a_little_fast_makes_nobody_wait(rate: float) -> None:
    pace = Pace(CHUNK)
    for i in range(1000):
        assert pace.due(100 + i * CHUNK / rate) == 100 + i * CHUNK / rate


def test_chunks_of_a_file_are_due_when_they_would_have_come() -> None:
    pace = Pace(CHUNK)
    dues = [pace.due(100.0) for _ in range(20)]
    assert dues == sorted(dues)
    assert dues[-1] == pytest.approx(100 - CREDIT + 19 * LIVE * CHUNK)


def test_nothing_is_due_later_than_a_bound_after_it_came() -> None:
    pace = Pace(CHUNK)
    assert max(pace.due(100.0) for _ in range(1000)) == 100 + AHEAD


def test_who_was_cut_off_for_a_moment_may_bring_what_it_owes() -> None:
    pace = Pace(CHUNK)
    pace.due(100.0)
    assert [pace.due(100.0 + CREDIT) for _ in range(3)] == [100.0 + CREDIT] * 3


def test_who_was_ahead_and_goes_on_live_is_live_again() -> None:
    pace = Pace(CHUNK)
    for _ in range(1000):
        pace.due(100.0)
    times = [100.0 + i * CHUNK for i in range(round(2 * AHEAD / (1 - LIVE) / CHUNK))]
    leads = [pace.due(now) - now for now in times]
    assert leads == sorted(leads, reverse=True)
    assert leads[-1] == 0


def test_without_a_clock_all_is_due_when_it_comes() -> None:
    pace = Pace(0.0)
    assert [pace.due(100.0) for _ in range(3)] == [100.0] * 3
