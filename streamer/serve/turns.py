"""Turns on the event loop: a connection with much to do does a little at a time, one connection after the other.

One read of a socket may hold tens of thousands of messages. To handle them all at once would delay every other
connection, and the health pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic, sleep

__all__ = ["Turns"]

log = logging.getLogger(__name__)

#: Seconds of one turn of the loop that these connections have together.
SLICE = 0.01
#: Seconds for which the loop's thread leaves the interpreter to other threads, once in every SLICE. A thread that waits
#: for the interpreter asks for it when nobody has given it back for five milliseconds; uvloop gives it back, and takes
#: it again at once, in every round. So with short rounds a lane, or the metrics page's thread, waited for .5 s.
PAUSE = 0.0001


class Turns:
    """Lives on the event loop. The waiting work is bounded: a connection that has work waiting is not read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], bool]] = deque()
        self._pause_at = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, work: Callable[[], bool]) -> None:
        """Queue ``work``, which does a little in its turn; if it returns True, it gets another turn."""
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append(work)

    def _run(self) -> None:
        waiting, until = self._waiting, monotonic() + SLICE
        for _ in range(len(waiting)):
            work = waiting[0]
            try:
                more = work()
            except Exception:  # one connection's failure must not end the others' turns
                log.exception("a connection's turn failed")
                more = False
            waiting.popleft()
            if more:
                waiting.append(work)
            if monotonic() >= until:
                break
        if waiting:
            if monotonic() >= self._pause_at:
                sleep(PAUSE)
                self._pause_at = monotonic() + SLICE
            self._loop.call_soon(self._run)
