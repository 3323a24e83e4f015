"""Turns on the event loop, and a page that many ask for at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from time import monotonic

import pytest
import uvloop

from streamer.serve import turns
from streamer.serve.loop_watch import LoopWatch
from streamer.serve.shared_page import CROWD, SharedPage
from streamer.serve.turns import Turns
from streamer.serve.websocket import TURN


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_each_has_a_turn_before_any_has_another() -> None:
    said: list[str] = []

    def worker(name: str, times: int) -> Callable[[], bool]:
        left = [times]

        def work() -> bool:
            said.append(name)
            left[0] -= 1
            return left[0] > 0

        return work

    async def go() -> None:
        made = Turns(asyncio.get_running_loop())
        for name, times in (("a", 3), ("b", 1), ("c", 2)):
            made.wait(worker(name, times))
        await until(lambda: not len(made))

    asyncio.run(go())
    assert "".join(said) == "abcaca"


def test_others_have_the_loop_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)  # a turn each
    order: list[str] = []

    async def go() -> None:
        loop = asyncio.get_running_loop()
        made = Turns(loop)
        for _ in range(3):
            made.wait(lambda: bool(order.append("work")))
        loop.call_soon(lambda: order.append("other"))
        await until(lambda: not len(made))

    asyncio.run(go())
    assert order == ["work", "other", "work", "work"]


def test_one_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []

    def fail() -> bool:
        raise ValueError("mine")

    async def go() -> None:
        made = Turns(asyncio.get_running_loop())
        made.wait(fail)
        made.wait(lambda: bool(said.append("other")))
        await until(lambda: not len(made))

    asyncio.run(go())
    assert said == ["other"]
    assert "turn failed" in caplog.text


def test_other_threads_run_in_between() -> None:
    """uvloop gives the interpreter back in each round, and takes it again at once: a thread that waits never asks."""
    asked, over, seen, rounds = threading.Event(), threading.Event(), 0, 0

    def other() -> None:
        nonlocal seen
        while not over.is_set():
            asked.wait()
            asked.clear()
            seen += 1

    def work() -> bool:
        nonlocal rounds
        until = monotonic() + TURN
        while monotonic() < until:
            pass
        rounds += 1
        if rounds % 20 == 0:
            asked.set()
        return rounds < 160 * 20

    async def go() -> None:
        made = Turns(asyncio.get_running_loop())
        made.wait(work)
        await until(lambda: not len(made))

    thread = threading.Thread(target=other)
    thread.start()
    try:
        uvloop.run(go())
        woken = seen
    finally:
        over.set()
        asked.set()
        thread.join()
    assert woken >= 40, f"of 160 times that a thread was woken, it ran {woken} times"


def test_how_late_the_loop_was_is_remembered_for_a_while() -> None:
    async def go() -> None:
        watch = LoopWatch(asyncio.get_running_loop())
        await asyncio.sleep(0)
        threading.Event().wait(0.3)  # somebody keeps the loop
        assert watch.behind() >= 0.2
        await asyncio.sleep(0.01)
        assert watch.behind() >= 0.2
        watch.stop()

    asyncio.run(go())


class Page:
    """Counts how often it is written, and waits to be let go."""

    def __init__(self) -> None:
        self.written, self.go = 0, threading.Semaphore(0)

    def __call__(self) -> bytes:
        assert self.go.acquire(timeout=20)
        self.written += 1
        return b"page %d" % self.written


def test_whoever_asks_gets_a_page_that_was_begun_after_that() -> None:
    async def go() -> None:
        page = Page()
        shared = SharedPage(page)
        first = [asyncio.create_task(shared.get()) for _ in range(3)]
        await until(lambda: shared._next is None and shared.waiting > 0)
        later = [asyncio.create_task(shared.get()) for _ in range(50)]
        page.go.release(3)
        assert await asyncio.gather(*first) == [b"page 1"] * 3
        assert await asyncio.gather(*later) == [b"page 2"] * 50
        assert await shared.get() == b"page 3"
        assert page.written == 3

    asyncio.run(go())


def test_where_a_crowd_waits_one_more_gets_the_last_page() -> None:
    async def go() -> None:
        page = Page()
        shared = SharedPage(page)
        page.go.release()
        assert await shared.get() == b"page 1"
        shared._begun += 60  # of this moment still, however slow the machine is
        crowd = [asyncio.create_task(shared.get()) for _ in range(CROWD)]
        await until(lambda: shared.waiting >= CROWD)
        assert await shared.get() == b"page 1"
        shared._begun -= 120
        one_more = asyncio.create_task(shared.get())
        page.go.release(2)
        assert set(await asyncio.gather(*crowd)) == {b"page 2"}
        assert await one_more in (b"page 2", b"page 3")

    asyncio.run(go())


def test_who_leaves_takes_the_page_from_nobody() -> None:
    async def go() -> None:
        page = Page()
        shared = SharedPage(page)
        leaves, stays = (asyncio.create_task(shared.get()) for _ in range(2))
        await until(lambda: shared.waiting >= 2)
        leaves.cancel()
        page.go.release()
        assert await stays == b"page 1"

    asyncio.run(go())


def test_a_page_that_fails_is_written_again_for_the_next() -> None:
    async def go() -> None:
        results: list[bytes | Exception] = [ValueError("no"), b"page"]

        def write() -> bytes:
            result = results.pop(0)
            if isinstance(result, Exception):
                raise result
            return result

        shared = SharedPage(write)
        with pytest.raises(ValueError, match="no"):
            await shared.get()
        assert await shared.get() == b"page"

    asyncio.run(go())
