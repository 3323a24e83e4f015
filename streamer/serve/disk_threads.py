"""Threads for what may wait for the disk: a few of their own, so that nobody else waits behind them.

The event loop's default threads render pages and read long bodies. A disk that hangs would take all of those, however
many there are.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["disk_thread", "set_disk_threads"]

T = TypeVar("T")

# The store has one connection, so that many more would wait for one another. What waits for a thread is bounded by the
# connections and requests that may be under way.
_threads = ThreadPoolExecutor(8, thread_name_prefix="disk")


def set_disk_threads(count: int) -> None:
    """How many there are (setting ``disk_threads``), from now on: before the first is used."""
    global _threads
    _threads.shutdown(wait=False)
    _threads = ThreadPoolExecutor(count, thread_name_prefix="disk")


def disk_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """``call`` in one of the threads, in the caller's context. From the event loop only."""
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(call))
