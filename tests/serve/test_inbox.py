"""What the event loop hands to lanes: chunks that come together are one batch."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from streamer.engine.scheduler import Place, Scheduler
from streamer.serve.inbox import Inbox


class Stream:
    def __init__(self) -> None:
        self.place, self.since, self.due, self.closing = Place.IDLE, 0.0, 0.0, False
        self.deadline, self.heard = 0.0, True


async def lanes_wait(scheduler: Scheduler[Stream], count: int) -> None:
    """Until so many lanes wait for work."""

    def poll() -> None:
        while scheduler._waiting < count:
            time.sleep(0.001)

    await asyncio.to_thread(poll)


def come_together(scheduler: Scheduler[Stream], streams: list[Stream]) -> None:
    """On the event loop, which lets others have the interpreter now and then, as it does when it writes to a socket."""
    for stream in streams:
        scheduler.ready(stream)
        time.sleep(0.001)


def test_what_comes_in_one_turn_of_the_loop_is_one_batch() -> None:
    async def main() -> None:
        loop, streams = asyncio.get_running_loop(), [Stream() for _ in range(5)]
        scheduler = Scheduler[Stream](8)
        scheduler.gather = Inbox(loop).gather
        with ThreadPoolExecutor(1) as lane:
            for _ in range(3):
                taken = loop.run_in_executor(lane, scheduler.take)
                await lanes_wait(scheduler, 1)
                come_together(scheduler, streams)
                assert await asyncio.wait_for(taken, 10) == streams
                scheduler.done(streams, [False] * len(streams))
            scheduler.close()

    asyncio.run(main())


def test_lanes_share_what_comes_in_one_turn() -> None:
    async def main() -> None:
        loop, streams = asyncio.get_running_loop(), [Stream() for _ in range(6)]
        scheduler = Scheduler[Stream](8)
        scheduler.gather = Inbox(loop).gather
        with ThreadPoolExecutor(2) as lanes:
            taken = [loop.run_in_executor(lanes, scheduler.take) for _ in range(2)]
            await lanes_wait(scheduler, 2)
            come_together(scheduler, streams)
            batches = await asyncio.wait_for(asyncio.gather(*taken), 10)
            assert sorted(map(len, batches)) == [3, 3]

    asyncio.run(main())


def test_from_another_thread_a_lane_is_woken_at_once() -> None:
    """The loop may be busy, or gone."""

    async def make() -> Inbox:
        return Inbox(asyncio.get_running_loop())

    inbox = asyncio.run(make())  # its loop never turns again
    scheduler, stream = Scheduler[Stream](8), Stream()
    scheduler.gather = inbox.gather
    assert not inbox.gather(scheduler._wake)  # of a loop that is closed
    with ThreadPoolExecutor(2) as threads:
        taken = threads.submit(scheduler.take)
        threads.submit(scheduler.ready, stream).result(10)
        assert taken.result(10) == [stream]
