"""Waiting for company: the scheduler on a clock of the test's own, where time passes only while a lane waits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.engine import Engine
from streamer.engine.model import Model
from streamer.engine.scheduler import Place, Scheduler
from streamer.metrics import Metrics
from streamer.tasks import create
from tests.toys import toy_model

WAIT, PAYS = 0.010, 4


class Item:
    def __init__(self) -> None:
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False
        self.deadline, self.heard = 0.0, True


class World(threading.Condition):
    """A clock, and a condition that moves it: whoever waits sleeps until the next thing happens, or for its timeout."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.coming: list[tuple[float, Callable[[], None]]] = []
        self.told = False

    def __call__(self) -> float:
        return self.now

    def at(self, seconds: float, happens: Callable[[], None]) -> None:
        self.coming.append((self.now + seconds, happens))

    def notify(self, n: int = 1) -> None:
        self.told = True

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else self.now + timeout
        self.told = False
        while self.coming and (until is None or self.coming[0][0] <= until):
            self.now, happens = self.coming.pop(0)
            happens()
            if self.told:
                return True
        assert until is not None, "the lane would wait for ever"
        self.now = until
        return False


@pytest.fixture
def world() -> World:
    return World()


def scheduler(world: World, held: list[float] | None = None, **given: Any) -> Scheduler[Item]:
    options = {"wait": WAIT, "pays": PAYS, **given}
    tell = [].append if held is None else held.append
    return Scheduler(16, [1, 2, 4, 8, 16], held=tell, clock=world, changed=world, **options)


def busy(world: World, made: Scheduler[Item], interval: float) -> None:
    """Streams have come at this interval for a while."""
    for _ in range(200):
        world.now += interval
        item = Item()
        made.ready(item)
        made.remove(item)


def arrive(world: World, made: Scheduler[Item], *seconds: float) -> list[Item]:
    """One is there now, the others come so much later."""
    items = [Item() for _ in range(1 + len(seconds))]
    made.ready(items[0])
    for item, after in zip(items[1:], seconds, strict=True):
        world.at(after, lambda item=item: made.ready(item))  # type: ignore[misc]
    return items


def test_a_lane_waits_until_as_many_are_ready_as_pay(world: World) -> None:
    held: list[float] = []
    made = scheduler(world, held)
    busy(world, made, 0.002)
    begin = world.now
    items = arrive(world, made, 0.002, 0.004, 0.006, 0.008)
    assert made.take() == items[:4]
    assert world.now == pytest.approx(begin + 0.006)
    assert held == [pytest.approx(0.006)]


def test_no_chunk_waits_longer_than_the_bound(world: World) -> None:
    made = scheduler(world)
    busy(world, made, 0.004)
    begin = world.now
    items = arrive(world, made, 0.004, 0.012)
    assert made.take() == items[:2]
    assert world.now == pytest.approx(begin + WAIT)


def test_the_bound_counts_from_when_the_chunk_was_ready(world: World) -> None:
    """The lanes were busy: who waited for one already does not wait for company as well."""
    made = scheduler(world)
    busy(world, made, 0.001)
    items = arrive(world, made)
    world.now += WAIT
    begin = world.now
    assert made.take() == items
    assert world.now == begin


@pytest.mark.parametrize("interval", [0.3, 0.02])
def test_where_nobody_is_likely_to_come_nobody_waits(world: World, interval: float) -> None:
    held: list[float] = []
    made = scheduler(world, held)
    busy(world, made, interval)
    begin = world.now
    items = arrive(world, made)
    assert made.take() == items
    assert world.now == begin
    assert held == []


def test_the_first_stream_of_all_does_not_wait(world: World) -> None:
    made = scheduler(world)
    begin = world.now
    items = arrive(world, made)
    assert made.take() == items
    assert world.now == begin


def test_a_stream_that_is_behind_is_not_held_nor_are_those_beside_it(world: World) -> None:
    made = scheduler(world)
    busy(world, made, 0.001)
    items = [Item() for _ in range(PAYS)]
    for item in items:
        made.ready(item)
    assert made.take() == items
    made.ready(fresh := Item())
    made.done(items, [True, False, False, False])  # the first has another chunk at once
    begin = world.now
    assert made.take() == [fresh, items[0]]
    assert world.now == begin


def test_a_stream_that_comes_late_while_a_lane_holds_ends_the_wait(world: World) -> None:
    made = scheduler(world)
    busy(world, made, 0.001)
    items = [Item() for _ in range(PAYS)]
    for item in items:
        made.ready(item)
    assert made.take() == items
    begin = world.now
    made.ready(fresh := Item())
    world.at(0.003, lambda: made.done(items, [True, False, False, False]) and None)
    assert made.take() == [fresh, items[0]]
    assert world.now == pytest.approx(begin + 0.003)


@pytest.mark.parametrize("given", [{"wait": 0.0}, {"pays": 1}])
def test_without_a_bound_or_where_batching_does_not_pay_nobody_waits(world: World, given: dict[str, Any]) -> None:
    made = scheduler(world, **given)
    busy(world, made, 0.001)
    begin = world.now
    items = arrive(world, made)
    assert made.take() == items
    assert world.now == begin


def test_who_leaves_while_a_lane_holds_is_not_run(world: World) -> None:
    made = scheduler(world)
    busy(world, made, 0.002)
    items = arrive(world, made, 0.002)
    world.at(0.003, lambda: made.remove(items[0]) and None)
    assert made.take() == items[1:]


def test_a_closed_scheduler_ends_the_wait(world: World) -> None:
    made = scheduler(world)
    busy(world, made, 0.001)
    arrive(world, made)
    world.notify_all = world.notify  # type: ignore[method-assign]
    world.at(0.002, made.close)
    assert made.take() == []


def test_a_batch_that_pays_is_not_shared_out_to_idle_lanes(world: World) -> None:
    made = scheduler(world)
    made._waiting = 1  # another lane waits
    items = arrive(world, made, 0, 0, 0)
    for _, happens in world.coming:
        happens()
    assert made.take() == items


@pytest.mark.parametrize(("asked", "given"), [(1.0, 0.004), (0.001, 0.001)])
def test_an_engine_holds_a_chunk_a_tenth_of_its_time_at_most(tmp_path: Path, asked: float, given: float) -> None:
    model = Model.load(toy_model(tmp_path))  # chunks of 40 ms
    made = Engine(model, create(model.manifest), Metrics(CollectorRegistry()).model("toy"), wait=asked, pays=4)
    assert made.wait == pytest.approx(given)
