"""New connections have a bounded share of the loop's time. The clock and the loop's timers are the test's own."""

from __future__ import annotations

import itertools

import pytest

from streamer.serve.handshakes import LEAST, LOOK, OWED, SAVED, Handshakes
from tests.serve.own_time import Time

WORK = 0.002


class Newcomer:
    """``log`` gets the time, the number and the reason of a refusal."""

    def __init__(self, time: Time, number: int, work: float, log: list[tuple[float, int, str | None]]) -> None:
        self._time, self._number, self._work, self._log = time, number, work, log

    def arrive(self) -> None:
        self._log.append((self._time.now, self._number, None))
        self._time.now += self._work

    def turn_away(self, why: str, seconds: float) -> None:
        assert seconds > 0
        self._log.append((self._time.now, self._number, why))


class Broken(Newcomer):
    def arrive(self) -> None:
        self._time.now += SAVED
        raise RuntimeError("a broken client")


class Newcomers:
    def __init__(self, most: int = 100_000, patience: float = 1e6) -> None:
        self.time, self.refused, self.taken, self.open = Time(), 0, 1.0, 0
        self.log: list[tuple[float, int, str | None]] = []
        self.handshakes = Handshakes(
            self.time,  # type: ignore[arg-type]
            most,
            patience,
            refused=self._refuse,
            taken=self._taken,
            open=lambda: self.open,
            clock=self.time,
        )

    def _refuse(self) -> None:
        self.refused += 1

    def _taken(self) -> float:
        if self.taken < 0:
            raise RuntimeError("the streams can not be looked at")
        return self.taken

    def come(self, count: int, work: float = WORK) -> list[Newcomer]:
        came = [Newcomer(self.time, number, work, self.log) for number in range(count)]
        for newcomer in came:
            self.handshakes.wait(newcomer)
        return came

    @property
    def turned_away(self) -> list[str]:
        return [why for _, _, why in self.log if why]


def test_a_few_are_answered_at_once() -> None:
    here = Newcomers()
    here.come(5)
    assert [(number, refusal) for _, number, refusal in here.log] == [(i, None) for i in range(5)]
    assert len(here.handshakes) == 0


def test_of_many_each_waits_its_turn_and_others_have_the_rest_of_the_time() -> None:
    here = Newcomers()
    here.come(500)
    assert 0 < len(here.log) < 20
    assert len(here.handshakes) == 500 - len(here.log)
    here.time.run()
    assert [number for _, number, _ in here.log] == list(range(500))
    assert len(here.handshakes) == 0
    begins = [at for at, _, _ in here.log]
    for first, last in itertools.combinations(range(0, 500, 25), 2):
        took = WORK * (last - first)
        assert took <= LEAST * (begins[last] - begins[first]) + SAVED + WORK + 1e-9
    assert begins[-1] - begins[0] == pytest.approx((500 * WORK - SAVED) / LEAST, rel=0.05)


@pytest.mark.parametrize("taken", [0.0, 0.5, 1.0])
def test_the_fewer_streams_there_are_the_larger_is_the_share(taken: float) -> None:
    here = Newcomers()
    here.taken = taken
    here.come(1000)
    here.time.run()
    took = here.log[-1][0] - here.log[0][0]
    assert took == pytest.approx((1000 * WORK - SAVED) / (1 - (1 - LEAST) * taken), rel=0.05)


def test_the_share_follows_the_streams_while_connections_wait() -> None:
    here = Newcomers()
    here.taken = 0.0
    here.come(1000)
    here.time.run(0.5)
    assert len(here.log) > 200
    here.taken = 1.0
    here.time.run(LOOK)
    before = len(here.log)
    here.time.run(1.0)
    assert len(here.log) - before <= LEAST / WORK + 2


def test_a_quiet_hour_saves_no_more_than_a_moment() -> None:
    here = Newcomers()
    here.come(500)
    here.time.run()
    here.time.run(3600.0)
    before = len(here.log)
    here.come(500)
    assert (len(here.log) - before) * WORK <= SAVED / (1 - LEAST) + WORK


def test_a_long_pause_in_one_handshake_keeps_the_others_waiting_for_a_moment_only() -> None:
    here = Newcomers()
    here.come(1, work=20.0)
    paused = here.time.now
    here.come(1)
    here.time.run()
    assert here.log[-1][0] - paused <= OWED / LEAST


def test_what_follows_a_handshake_counts() -> None:
    here = Newcomers()
    here.handshakes.spend(SAVED + 0.03)
    here.come(1)
    assert here.log == []
    here.time.run(0.029 / LEAST)
    assert here.log == []
    here.time.run(LOOK)
    assert len(here.log) == 1


def test_one_that_fails_does_not_keep_the_others_waiting() -> None:
    here = Newcomers()
    here.come(2)
    here.handshakes.wait(Broken(here.time, 0, 0, here.log))
    here.come(40)
    here.time.run()
    assert len(here.log) == 42
    assert len(here.handshakes) == 0


def test_a_failed_look_at_the_streams_does_not_stop_the_handshakes() -> None:
    here = Newcomers()
    here.come(100)
    here.time.run(LOOK)
    before, here.taken = len(here.log), -1.0
    with pytest.raises(RuntimeError, match="looked at"):
        here.time.run()
    here.taken = 1.0
    here.time.run()
    assert before < 100 == len(here.log)


def test_one_that_leaves_takes_no_turn() -> None:
    here = Newcomers()
    came = here.come(500)
    for newcomer in came[:480]:
        here.handshakes.leave(newcomer)
    begin = here.time.now
    here.time.run()
    assert [number for _, number, _ in here.log[-20:]] == list(range(480, 500))
    assert here.time.now - begin < 25 * WORK / LEAST
    here.handshakes.leave(came[0])  # which is not here any longer


def test_one_that_would_wait_too_long_is_refused_at_once() -> None:
    here = Newcomers(patience=2.0)
    here.come(1000)
    first = len(here.turned_away)
    assert first > 500
    assert "handshake_seconds" in here.turned_away[0]
    begin = here.time.now
    here.time.run()
    assert here.time.now - begin <= 2 * 2.0  # the cost was thought to be COST
    assert here.refused == len(here.turned_away)
    assert len(here.log) == 1000
    before = here.time.now
    here.come(1000)  # now it is known
    here.time.run()
    assert here.time.now - before <= 2.0 + WORK / LEAST
    waited = [why for why in here.turned_away if "waited" in why]
    assert len(here.turned_away) > first
    assert len(waited) < 500


def test_those_that_are_open_and_those_that_wait_are_bounded_together() -> None:
    here = Newcomers(most=50)
    here.open = 20
    here.come(100, work=0.02)
    assert len(here.handshakes) == 30
    assert here.refused == len(here.turned_away) == 100 - 30 - len([1 for _, _, why in here.log if not why])
    assert "max_connections" in here.turned_away[0]


def test_with_as_many_open_as_may_be_a_single_one_has_its_turn() -> None:
    here = Newcomers(most=50)
    here.open = 50  # of one protocol: another one may have room
    here.come(1)
    assert len(here.log) == 1
    assert here.turned_away == []
