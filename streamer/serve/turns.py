"""Turns on the event loop: whoever brings much gets a little at a time, one connection after the other.

What a socket gives in one read may hold tens of thousands of messages. Read to its end it would make everybody wait,
and with it the pages that tell whether the daemon lives.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

__all__ = ["Turns"]

log = logging.getLogger(__name__)

#: Seconds of the loop's turn that connections with more to do have together.
SLICE = 0.01


class Turns:
    """Lives on the event loop. What waits is bounded by who waits: a connection that is not through is not read."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], bool]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, work: Callable[[], bool]) -> None:
        """``work`` does a little in its turn; True: it wants another one."""
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append(work)

    def _run(self) -> None:
        waiting, until = self._waiting, monotonic() + SLICE
        for _ in range(len(waiting)):
            work = waiting[0]
            try:
                more = work()
            except Exception:  # one connection's trouble is its own
                log.exception("a connection's turn failed")
                more = False
            waiting.popleft()
            if more:
                waiting.append(work)
            if monotonic() >= until:
                break
        if waiting:
            self._loop.call_soon(self._run)
