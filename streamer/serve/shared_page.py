"""A page that takes long to write, once for all who ask at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["SharedPage"]

#: So many wait for a page at most, while there is one of this moment, in seconds.
CROWD, MOMENT = 4, 1.0
#: Its own: whoever asks how the daemon is must not wait behind bodies that are being read.
_thread = ThreadPoolExecutor(1, thread_name_prefix="page")


class SharedPage:
    """``write`` is called in a thread, one call at a time. Whoever asks gets what was begun after that: those that come
    while a page is written share the next one, which is begun once as much time has passed as the last one took. So
    writing takes half of the time of a thread at most, however many ask. Where a crowd waits already, one more gets the
    last page, if that was begun within :data:`MOMENT`."""

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
            return await asyncio.shield(self._next)  # who leaves takes it from nobody
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
