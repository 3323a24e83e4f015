"""Bodies and answers that wait for a thread are seen, so that more can be refused."""

from __future__ import annotations

import asyncio
import threading

from streamer.serve.body import SHORT, in_thread, threads_behind
from streamer.serve.parse_threads import THREADS


def test_what_waits_for_a_thread_is_seen() -> None:
    go_on = threading.Event()

    async def talk() -> list[int]:
        loop, begun = asyncio.get_running_loop(), asyncio.Semaphore(0)

        def first() -> int:
            loop.call_soon_threadsafe(begun.release)
            go_on.wait(60)
            return 1

        calls = [*[first] * THREADS, lambda: 2]
        tasks = [asyncio.create_task(in_thread(call, SHORT + 1)) for call in calls]
        for _ in range(THREADS):
            await begun.acquire()
        assert await in_thread(lambda: 3, SHORT) == 3  # which waits for none
        assert threads_behind() > 0
        go_on.set()
        return list(await asyncio.gather(*tasks))

    assert threads_behind() == 0
    assert asyncio.run(talk()) == [1] * THREADS + [2]
    assert threads_behind() == 0
