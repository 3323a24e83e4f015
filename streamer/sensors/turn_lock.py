"""A lock for two threads, one of which takes it again at once: the waiting thread gets it next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["TurnLock"]


class TurnLock:
    """A plain lock would always go back to a busy lane, and the saver would wait for ever. With this lock a thread that
    released it can't take it again while another one waits."""

    def __init__(self) -> None:
        self._door, self._lock = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @contextmanager
    def within(self, seconds: float) -> Iterator[bool]:
        """Yields whether the lock was taken within ``seconds``."""
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
