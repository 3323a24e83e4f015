"""Who is next: the earliest deadline, and those that nobody listens to behind all others."""

from __future__ import annotations

from math import inf

import numpy as np

from streamer.engine.ready import SPARE, ReadyQueue
from streamer.engine.scheduler import Place, Scheduler


class Item:
    def __init__(self, deadline: float = 0.0, heard: bool = True) -> None:
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False
        self.deadline, self.heard = deadline, heard


def order(*items: Item) -> list[Item]:
    queue: ReadyQueue[Item] = ReadyQueue()
    for item in items:
        queue.push(item, item.deadline)
    return [queue.pop() for _ in items]


def test_the_earliest_deadline_comes_first_and_equals_as_they_came() -> None:
    a, b, c, d = Item(2), Item(1), Item(2), Item(1)
    assert order(a, b, c, d) == [b, d, a, c]


def test_what_nobody_listens_to_comes_last() -> None:
    a, b, c = Item(1, heard=False), Item(9), Item(5)
    assert order(a, b, c) == [c, b, a]


def test_one_that_nobody_listens_to_any_more_is_moved_behind_and_comes_back() -> None:
    queue: ReadyQueue[Item] = ReadyQueue()
    a, b = Item(1), Item(2)
    queue.push(a, 1)
    queue.push(b, 2)
    assert queue.earliest == 1
    a.heard = False
    queue.push(a, 1)
    assert (len(queue), queue.earliest) == (2, 2)
    a.heard = True
    queue.push(a, 1)
    queue.push(a, 1)  # said twice
    assert [queue.pop(), queue.pop(), len(queue)] == [a, b, 0]
    assert queue.earliest == inf


def test_the_deadline_of_those_that_nobody_listens_to_is_none() -> None:
    queue: ReadyQueue[Item] = ReadyQueue()
    queue.push(Item(1, heard=False), 1)
    assert (len(queue), queue.earliest) == (1, inf)


def test_a_queue_is_that_of_a_plain_sort_whatever_happens_to_it() -> None:
    rng = np.random.default_rng(0)
    queue: ReadyQueue[Item] = ReadyQueue()
    there: dict[Item, tuple[bool, float, int]] = {}
    for number in range(5000):
        what = rng.integers(4)
        if what < 2 or not there:
            item = Item()
        else:
            item = list(there)[rng.integers(len(there))]
        if what == 3 and item in there:
            queue.remove(item)
            del there[item]
        elif what == 2 and there:
            first = min(there, key=lambda one: there[one])
            assert queue.pop() is first
            del there[first]
        else:
            item.heard, item.deadline = bool(rng.integers(2)), float(rng.integers(20))
            if there.get(item, ())[:2] != (not item.heard, item.deadline):
                there[item] = (not item.heard, item.deadline, number)
            queue.push(item, item.deadline)
        assert len(queue._heap) <= 2 * len(there) + SPARE + 1
    assert [queue.pop() for _ in range(len(queue))] == sorted(there, key=lambda one: there[one])


def test_what_is_not_due_lets_other_models_go_first() -> None:
    now = [100.0]
    scheduler: Scheduler[Item] = Scheduler(8, clock=lambda: now[0])
    pressing = [True]
    scheduler.elsewhere = lambda: pressing[0]
    early, due = Item(200.0), Item(99.0)
    scheduler.ready(early)
    assert scheduler._left()  # a lane looks again in a moment
    scheduler.ready(due)
    assert scheduler._left() == 0  # what is due waits for nobody
    assert scheduler.take() == [due, early]
    scheduler.done([due, early], [False, True])
    assert scheduler._left()
    pressing[0] = False
    assert scheduler._left() == 0


def test_how_far_behind_counts_from_when_the_oldest_chunk_was_due() -> None:
    now = [100.0]
    scheduler: Scheduler[Item] = Scheduler(8, clock=lambda: now[0])
    behind, early, deaf = Item(97.0), Item(105.0), Item(50.0, heard=False)
    for item in (early, deaf):
        scheduler.ready(item)
    assert scheduler.waited() == 0
    scheduler.ready(behind)
    assert scheduler.waited() == 3
