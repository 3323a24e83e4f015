"""Measures how late the event loop is. A long call there delays every connection; then new streams are refused."""

from __future__ import annotations

import asyncio

__all__ = ["LoopWatch"]

#: Seconds between two looks.
INTERVAL = 0.05
#: Seconds for which the largest delay is remembered; afterwards it counts for the same time once more.
WINDOW = 1.0


class LoopWatch:
    """Lives on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worst = self._before = 0.0
        self._turned = self._expected = loop.time()
        self._tick()

    def behind(self) -> float:
        """The largest delay of the loop in the last second or two, in seconds."""
        return max(self._worst, self._before, self._loop.time() - self._expected)

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._turned >= WINDOW:
            self._turned, self._before, self._worst = now, self._worst, 0.0
        self._worst = max(self._worst, now - self._expected)
        self._expected = now + INTERVAL
        self._timer = self._loop.call_later(INTERVAL, self._tick)

    def stop(self) -> None:
        self._timer.cancel()
