"""From the event loop to threads: a lane is woken once for all chunks that the loop has read in one turn.

A lane that is woken for each chunk runs each chunk alone, since it gets the interpreter whenever the loop writes to a
socket. Chunks that come together belong into one batch: that costs a fraction, and delays a chunk by no more than the
loop's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import get_ident

__all__ = ["Inbox"]


class Inbox:
    """Made on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._thread = loop, get_ident()
        self._waiting: dict[Callable[[], None], None] = {}

    def gather(self, wake: Callable[[], None]) -> bool:
        """Call ``wake`` at the end of the loop's turn, once even if it is passed several times. False from other
        threads: then nothing was done."""
        if get_ident() != self._thread:
            return False
        if not self._waiting:
            try:
                self._loop.call_soon(self._wake)
            except RuntimeError:  # the loop is closed
                return False
        self._waiting[wake] = None
        return True

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()
