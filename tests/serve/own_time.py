"""A clock and timers that only a test moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

__all__ = ["Time"]


class Time:
    """A clock that only work and :meth:`run` move, and the timers on it."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[[], None]) -> None:
        assert delay >= 0
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), call))

    def run(self, seconds: float = 1e9) -> None:
        """Let time pass, at most until no timer is left."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            at, _, call = heapq.heappop(self._timers)
            self.now = max(self.now, at)
            call()
        if seconds < 1e9:
            self.now = max(self.now, until)
