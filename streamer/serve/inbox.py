"""From the event loop to threads: lanes are woken once for all chunks that the loop has read together.

A lane that is woken for each takes each alone: it gets the interpreter whenever the loop writes to a socket. What comes
together belongs into one batch, which costs a fraction, and delays nobody by more than the loop takes to read it.
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
        """Call ``wake`` at the end of the loop's turn, once however often it was given. False from other threads:
        nothing was done."""
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
