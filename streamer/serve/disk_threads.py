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

__all__ = ["THREADS", "disk_thread"]

T = TypeVar("T")

#: The store has one connection, so that more would wait for one another. What waits for a thread is bounded by the
#: connections and requests that may be under way.
THREADS = 8

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="disk")


def disk_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """``call`` in one of the threads, in the caller's context. From the event loop only."""
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(call))
