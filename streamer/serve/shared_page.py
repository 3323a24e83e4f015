"""A page that takes long to render, rendered once for all requests of the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["SharedPage"]

#: Most requests that wait for a page while the last one is at most so many seconds old.
CROWD, MOMENT = 4, 1.0
#: A thread of its own: requests for health and metrics must not wait behind bodies that are being read.
_thread = ThreadPoolExecutor(1, thread_name_prefix="page")


class SharedPage:
    """``write`` renders the page; it is called in a thread, one call at a time. A request gets a page that was begun
    after the request: requests that come during a call share the next one, which begins once as much time has passed as
    the last one took. So rendering takes at most half the time of one thread, however many requests come. If
    :data:`CROWD` requests wait already, one more gets the last page, if that was begun within :data:`MOMENT`."""

    def __init__(self, write: Callable[[], bytes]) -> None:
        self._write = write
        self._next: asyncio.Task[bytes] | None = None
        self._writing = asyncio.Lock()
        self._rested = 0.0
        self._last, self._begun = b"", 0.0
        self.waiting = 0

    async def get(self) -> bytes:
        if self.waiting >= CROWD and self._last and asyncio.get_running_loop().time() < self._begun + MOMENT:
            return self._last
        if self._next is None:
            self._next = asyncio.create_task(self._make())
        self.waiting += 1
        try:
            return await asyncio.shield(self._next)  # a request that is cancelled must not cancel the others' page
        finally:
            self.waiting -= 1

    async def _make(self) -> bytes:
        loop = asyncio.get_running_loop()
        async with self._writing:
            if (rest := self._rested - loop.time()) > 0:
                await asyncio.sleep(rest)
            self._next = None
            begin = loop.time()
            try:
                page = await loop.run_in_executor(_thread, self._write)
                self._last, self._begun = page, begin
                return page
            finally:
                end = loop.time()
                self._rested = end + end - begin
