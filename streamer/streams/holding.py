"""A stream's lock, and those who hold the stream: while somebody does, no lane takes a chunk of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Holdable"]


class Holdable:
    """The lock is reentrant. ``_changed`` wakes whoever waits for the chunk in flight."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._holders = 0

    def hold(self) -> None:
        """Lanes pass this stream over until :meth:`go_on`: a snapshot need not race with them."""
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
        """A lane may take what waits, unless the stream is held. Under the lock."""
        raise NotImplementedError
