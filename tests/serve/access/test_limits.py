"""Rates and guesses, on a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.access.grant import Denied, Grant
from streamer.serve.access.limits import Allowance, Guesses
from streamer.serve.access.tokens import Token


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_stored_is_had_at_once_and_then_by_the_second() -> None:
    clock = Clock()
    allowance = Allowance(2.0, 4.0, clock)
    for _ in range(4):
        assert allowance.wait() == 0
        allowance.take(1)
    assert allowance.wait() == pytest.approx(0.5)
    clock.now += 0.5
    assert allowance.wait() == 0
    assert allowance.take(1) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10_000)), max_size=60))
def test_no_more_comes_than_the_rate_and_one_burst_and_one_piece(steps: list[tuple[float, float]]) -> None:
    """Whoever waits as he is told: in all, rate x time + burst + the last piece."""
    clock = Clock()
    allowance, taken, last = Allowance(100.0, 300.0, clock), 0.0, 0.0
    for pause, piece in steps:
        clock.now += pause
        if not allowance.wait():
            allowance.take(piece)
            taken, last = taken + piece, piece
        assert taken <= 100.0 * (clock.now - Clock.now) + 300.0 + last + 1e-3


def test_waiting_as_told_is_enough() -> None:
    clock = Clock()
    allowance = Allowance(3.0, 3.0, clock)
    for piece in (1.0, 100.0, 0.5, 7.0):
        clock.now += allowance.wait()
        assert allowance.wait() == 0
        allowance.take(piece)


def test_an_address_that_guesses_waits_and_is_not_told_whether_it_was_right() -> None:
    clock = Clock()
    guesses = Guesses(3, 10.0, 100, clock)
    for _ in range(3):
        assert guesses.wait("10.0.0.1", "x") == 0
        guesses.was_wrong("10.0.0.1")
    assert guesses.wait("10.0.0.1", "the right one") == pytest.approx(10.0)
    assert guesses.wait("10.0.0.2", "x") == 0
    clock.now += 10.1
    assert guesses.wait("10.0.0.1", "x") == 0
    guesses.was_wrong("10.0.0.1")
    assert guesses.wait("10.0.0.1", "x") > 0


def test_who_was_right_before_goes_on_beside_a_guesser() -> None:
    guesses = Guesses(1, 10.0, 100, Clock())
    guesses.was_right("10.0.0.1", "known")
    for _ in range(5):
        guesses.was_wrong("10.0.0.1")
    assert guesses.wait("10.0.0.1", "known") == 0
    assert guesses.wait("10.0.0.1", "other") > 0
    assert guesses.wait("10.0.0.9", "known") == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "", True),
    ],
)
def test_who_has_an_address_of_ipv6_has_many(one: str, other: str, same: bool) -> None:
    guesses = Guesses(1, 10.0, 100, Clock())
    guesses.was_wrong(one)
    assert (guesses.wait(other, "x") > 0) is same


def test_what_is_remembered_is_bounded() -> None:
    guesses = Guesses(1, 10.0, 50, Clock())
    for number in range(500):
        guesses.was_wrong(f"10.0.{number // 250}.{number % 250}")
        guesses.was_right("10.0.0.1", str(number))
    assert len(guesses._wrong) == 50
    assert len(guesses._right) == 50
    assert guesses.wait("10.0.1.249", "x") > 0


def test_a_token_over_its_limits_is_told_for_how_long() -> None:
    clock = Clock()
    given = {"name": "a", "owner": "a", "sha256": "0" * 64, "scopes": ["stream"]}
    grant = Grant(Token.model_validate({**given, "requests_per_second": 0.5, "bytes_per_second": 1000}), clock)
    grant.request()
    with pytest.raises(Denied) as refused:
        grant.request()
    assert (refused.value.status, refused.value.reason, refused.value.headers) == (429, "rate", {"Retry-After": "2"})
    clock.now += 2.1
    grant.request()
    clock.now += 2.1
    assert grant.spend(5000) == pytest.approx(4.0, rel=0.01)
    with pytest.raises(Denied) as refused:
        grant.request()
    assert (refused.value.reason, refused.value.headers) == ("bytes", {"Retry-After": "5"})
    clock.now += 4.1
    grant.request()
