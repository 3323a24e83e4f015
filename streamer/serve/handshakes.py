"""New WebSocket connections have a bounded share of the event loop's time, so that many that come in one instant do not
delay the streams that are there. The fewer these are, the larger the share: after a restart all come in one instant.

A handshake and the start frame behind it take about a millisecond. A few connections are answered at once. When they
have used up what was saved, each of the others waits, first come, first served, until the share allows for it. One that
would wait longer than its client is refused at once, which costs little.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from random import uniform
from time import monotonic
from typing import Protocol

__all__ = ["Handshakes"]

log = logging.getLogger(__name__)

#: Share of the loop's time for new connections beside as many streams as are admitted, and seconds of it that are saved
#: while none come, and that are owed at most.
LEAST, SAVED, OWED = 0.15, 0.02, 0.1
#: Seconds between two looks at how many streams there are; the loop's timers have the resolution ``SHORTEST``.
LOOK, SHORTEST = 0.1, 0.001
#: Cost of a connection in seconds before any is measured, and the weight of the last one in the running mean.
COST, LAST = 0.001, 0.05


class Newcomer(Protocol):
    """A connection that asks for its handshake."""

    def arrive(self) -> None:
        """It has its turn."""

    def turn_away(self, why: str, seconds: float) -> None:
        """It is refused, and may come back after some ``seconds``."""


class Handshakes:
    """Lives on the event loop.

    ``most``: connections that wait or are ``open()``, at a time; ``patience``: seconds that one waits, at most;
    ``refused()`` is called for each that is refused. ``taken()``: the part of the machine that streams take, 0 to 1.
    With 1 new connections have ``LEAST`` of the loop's time, with less more, with 0 all of it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        most: int,
        patience: float,
        *,
        refused: Callable[[], None] = lambda: None,
        taken: Callable[[], float] = lambda: 1.0,
        open: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._loop, self._most, self._patience, self._clock = loop, most, patience, clock
        self._refused, self._taken, self._open = refused, taken, open
        self._waiting: OrderedDict[Newcomer, float] = OrderedDict()  # when each came
        self._timer: asyncio.TimerHandle | None = None
        self._share, self._cost, self._looked = LEAST, COST, -math.inf
        self._saved, self._counted = SAVED, clock()

    def __len__(self) -> int:
        return len(self._waiting)

    def wait(self, newcomer: Newcomer) -> None:
        """Let ``newcomer`` arrive, now or in its turn, or turn it away."""
        # where none waits, the protocol that is asked for has its own bound
        if self._waiting and len(self._waiting) + self._open() >= self._most:
            self._turn_away(newcomer, f"there are {self._most} (max_connections)")
        elif (expected := len(self._waiting) * self._cost / self._share) > self._patience:
            self._turn_away(newcomer, f"this one would wait {expected:.0f} s (handshake_seconds)")
        else:
            self._waiting[newcomer] = self._clock()
            if self._timer is None:
                self._run()

    def leave(self, newcomer: Newcomer) -> None:
        """It does not wait any longer."""
        self._waiting.pop(newcomer, None)

    def spend(self, seconds: float) -> None:
        """Count time that a new connection took after its handshake."""
        self._saved = max(-OWED, self._saved - seconds)

    def _run(self) -> None:
        self._timer = None
        try:
            self._look()
            while self._waiting and self._saved > 0:
                newcomer, came = self._waiting.popitem(last=False)
                before = self._clock()
                if before - came > self._patience:
                    self._turn_away(newcomer, "this one waited too long (handshake_seconds)")
                    continue
                try:
                    newcomer.arrive()
                except Exception:  # one connection's failure must not end the others' wait
                    log.exception("a handshake failed")
                took = self._clock() - before
                self._cost += LAST * (took - self._cost)
                self.spend(took)
        finally:
            if self._waiting:
                pause = min(LOOK, max(SHORTEST, -self._saved / self._share))
                self._timer = self._loop.call_later(pause, self._run)

    def _look(self) -> None:
        """Add what the share has given since the last time."""
        now = self._clock()
        if now - self._looked >= LOOK:  # which goes through all streams
            self._looked = now
            self._share = 1 - (1 - LEAST) * self._taken()
        self._saved = min(SAVED, self._saved + self._share * (now - self._counted))
        self._counted = now

    def _turn_away(self, newcomer: Newcomer, why: str) -> None:
        self._refused()
        newcomer.turn_away(f"too many new connections: {why}", uniform(self._patience, 2 * self._patience))
