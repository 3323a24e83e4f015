"""From threads to the event loop: calls that lanes pass to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from time import monotonic

__all__ = ["Outbox"]

log = logging.getLogger(__name__)

#: Seconds for which deliveries are gathered: about what a lane takes to hand out a batch. Without it every stream's
#: events would wake the event loop, and it would take the interpreter from the lane each time.
PATIENCE = 0.001
#: After so few deliveries in one go, the next ones are not gathered: that would only delay a lone stream.
FEW = 2
#: Seconds of deliveries in one go; afterwards the event loop's sockets and timers have their turn.
SLICE = 0.01


class Outbox:
    """Deliveries that come together take one wake-up. The callers of :meth:`put` have to bound how many wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()  # since when
        self._scheduled = False
        self._few = True  # the last time there were few deliveries

    def put(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the event loop soon, after those put before. From any thread."""
        self._waiting.append((monotonic(), call))
        # Appending before looking at the flag, and _run() clearing it before it counts what waits: no wake-up is lost.
        if not self._scheduled:
            self._scheduled = True
            try:
                if self._few:
                    self._loop.call_soon_threadsafe(self._run)
                else:
                    self._loop.call_soon_threadsafe(self._loop.call_later, PATIENCE, self._run)
            except RuntimeError:  # the loop is closed: no receiver is left
                self._waiting.clear()

    def waited(self) -> float:
        """Seconds for which the oldest delivery has been waiting. On the event loop."""
        return monotonic() - self._waiting[0][0] if self._waiting else 0.0

    def flush(self) -> None:
        """Deliver at once all calls that wait now; not those that come meanwhile."""
        self._deliver(float("inf"))

    def _run(self) -> None:
        self._scheduled = False
        self._few = len(self._waiting) <= FEW
        self._deliver(monotonic() + SLICE)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _deliver(self, until: float) -> None:
        for _ in range(len(self._waiting)):
            try:
                self._waiting.popleft()[1]()
            except Exception:  # one connection's failure must not cost the others their events
                log.exception("a delivery failed")
            if monotonic() >= until:
                return
