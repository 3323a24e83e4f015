"""New WebSocket connections have a bounded share of the event loop's time, so that many that come in one instant do not
delay the streams that are there. The fewer these are, the larger the share: after a restart all come in one instant.

A handshake and the start frame behind it take about a millisecond. A few connections are answered at once. When they
have used up what was saved, each of the others waits, first come, first served, until the share allows for it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from time import monotonic

__all__ = ["Arrivals"]

log = logging.getLogger(__name__)

#: Share of the loop's time for new connections beside as many streams as are admitted, and seconds of it that are saved
#: while none come.
LEAST, SAVED = 0.15, 0.02
#: Seconds between two looks at how many streams there are.
LOOK = 0.1
#: The loop's timers have this resolution, in seconds.
SHORTEST = 0.001

Arrive = Callable[[str | None], None]


class Arrivals:
    """Lives on the event loop. ``most``: connections that wait at a time; ``patience``: seconds that each waits at
    most; ``refused()`` is called for each that is refused. ``taken()``: the part of the machine that streams take, 0 to
    1. With 1 new connections have ``LEAST`` of the loop's time, with less more, with 0 all of it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        most: int,
        patience: float,
        refused: Callable[[], None] = lambda: None,
        taken: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop, self._most, self._patience, self._refused, self._clock = loop, most, patience, refused, clock
        self._waiting: deque[tuple[float, Arrive]] = deque()  # when it came, and what it does in its turn
        self._taken, self._share = taken, LEAST
        self._saved, self._counted, self._looked = SAVED, clock(), -math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, arrive: Arrive) -> None:
        """Call ``arrive`` with ``None``, now or in its turn; or with the reason why the connection is refused."""
        if len(self._waiting) >= self._most:
            self._refuse(arrive, f"{self._most} connections wait already (max_connections): try again later")
            return
        self._waiting.append((self._clock(), arrive))
        if len(self._waiting) == 1:
            self._run()

    def spend(self, seconds: float) -> None:
        """Count time that a new connection took after its handshake."""
        self._saved -= seconds

    def _run(self) -> None:
        now = self._clock()
        if now - self._looked >= LOOK:  # which goes through all streams
            self._share, self._looked = 1 - (1 - LEAST) * self._taken(), now
        self._saved = min(SAVED, self._saved + self._share * (now - self._counted))
        self._counted = now
        while self._waiting and self._saved > 0:
            came, arrive = self._waiting[0]
            if now - came > self._patience:
                self._refuse(arrive, f"its turn did not come in {self._patience:g} s (handshake_seconds): try again")
            else:
                self._call(arrive, None)
            self._waiting.popleft()
            before, now = now, self._clock()
            self._saved -= now - before
        if self._waiting:
            self._loop.call_later(max(SHORTEST, -self._saved / self._share), self._run)

    def _refuse(self, arrive: Arrive, why: str) -> None:
        self._refused()
        self._call(arrive, f"too many new connections: {why}\n")

    def _call(self, arrive: Arrive, refusal: str | None) -> None:
        try:
            arrive(refusal)
        except Exception:  # one connection's failure must not end the others' wait
            log.exception("a new connection failed")
