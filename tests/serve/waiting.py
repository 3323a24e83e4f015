"""Waiting for what a daemon shows from outside."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep

__all__ = ["until"]


def until(reached: Callable[[], bool]) -> None:
    """Ask again and again, with generous patience."""
    deadline = monotonic() + 60
    while not reached():
        assert monotonic() < deadline, "it never came to be"
        sleep(0.01)
