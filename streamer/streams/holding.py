"""A stream's lock, and holds on the stream: while there is a hold, no lane takes a chunk of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Holdable"]


class Holdable:
    """The lock is reentrant. ``_changed`` wakes threads that wait for the chunk in flight."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._holders = 0

    def hold(self) -> None:
        """Lanes skip this stream until :meth:`go_on`, so that a snapshot need not race with them."""
        with self._lock:
            self._holders += 1

    def go_on(self) -> None:
        with self._lock:
            self._holders -= 1
            self._wake()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.go_on()

    def _wake(self) -> None:
        """Let a lane take the waiting rows, unless the stream is held. Called under the lock."""
        raise NotImplementedError
