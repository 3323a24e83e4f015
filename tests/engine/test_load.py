"""What a batch costs, and whether results come late: on numbers of the test's own."""

from __future__ import annotations

import pytest

from streamer.engine.load import FORGET, WINDOW, Load


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def load(limit: int = 32, chunk_seconds: float = 0.3, clock: Clock | None = None) -> Load:
    made = Load(1, limit, chunk_seconds, clock or Clock())
    made.allowed = 0.1
    return made


def test_nothing_is_known_before_the_first_batch() -> None:
    assert load().seconds(8) == 0
    assert load().share(100) == 0


def test_what_was_measured_at_start_says_what_batches_cost() -> None:
    made = load()
    made.expect([(1, 0.002), (32, 0.033)])
    assert made.seconds(1) == pytest.approx(0.002)
    assert made.seconds(16) == pytest.approx(0.017)


def test_batches_of_late_say_it_better() -> None:
    made = load()
    made.expect([(1, 0.002), (32, 0.033)])
    for _ in range(round(10 / FORGET)):
        for size in (2, 8, 20):
            made.batch(size, 0.010 + 0.003 * size)
    assert made.seconds(10) == pytest.approx(0.040, rel=0.1)
    assert made.seconds(30) == pytest.approx(0.100, rel=0.1)
    assert made.seconds(1) < 0.016  # not by as much as the larger ones


def test_sizes_that_have_not_come_are_as_much_dearer_as_those_that_have() -> None:
    made = load()
    made.expect([(1, 0.002), (32, 0.033)])
    for _ in range(round(10 / FORGET)):
        made.batch(1, 0.006)
    assert made.seconds(32) == pytest.approx(0.099, rel=0.1)


def test_a_larger_batch_never_costs_less() -> None:
    made = load()
    for _ in range(100):
        made.batch(4, 0.020)
        made.batch(8, 0.010)
    assert made.seconds(1) <= made.seconds(4) <= made.seconds(32)


def test_the_share_of_streams_is_what_their_batches_take() -> None:
    made = load()
    made.expect([(1, 0.002), (32, 0.033)])
    # 60 streams: batches of 30 that take 31 ms each, two of them in 300 ms
    assert made.share(60) == pytest.approx(2 * 0.031 / 0.3)
    assert made.share(0) == 0
    assert load(chunk_seconds=0.0).share(60) == 0


def test_a_few_late_chunks_are_none() -> None:
    made = load()
    for lateness in (1.0, 1.0):
        made.ran(lateness)
    assert not made.late()
    made.ran(1.0)
    assert made.late()


def test_late_chunks_are_a_share_of_all_and_are_forgotten() -> None:
    clock = Clock()
    made = load(clock=clock)
    for i in range(1000):
        made.ran(0.2 if i % 100 == 0 else 0.05)
    assert not made.late()
    for _ in range(50):
        made.ran(0.2)
    assert made.late()
    clock.now += WINDOW
    made.ran(0.0)
    assert made.late()
    clock.now += WINDOW
    made.ran(0.0)
    assert not made.late()


def test_late_chunks_are_forgotten_when_nothing_comes_any_more() -> None:
    clock = Clock()
    made = load(clock=clock)
    for _ in range(50):
        made.ran(0.2)
    clock.now += 2 * WINDOW
    assert not made.late()
