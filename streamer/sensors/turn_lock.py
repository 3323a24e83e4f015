"""A lock for two threads of which one takes it again at once: who waits gets it next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TurnLock"]


class TurnLock:
    """A plain lock would go back to a lane that has always more to run, and the saver would wait for ever: nobody
    enters while another waits at the door."""

    def __init__(self) -> None:
        self._door, self._lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def within(self, seconds: float) -> Iterator[bool]:
        """Held if it came free within so many ``seconds``, else ``False`` is given."""
        if not self._door.acquire(timeout=seconds):
            yield False
            return
        try:
            held = self._lock.acquire(timeout=seconds)
        finally:
            self._door.release()
        try:
            yield held
        finally:
            if held:
                self._lock.release()
