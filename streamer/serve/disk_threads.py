"""A few threads for calls that may wait for the disk, so that no other work waits behind them.

The event loop's default threads render pages and read long bodies. A disk that hangs would block all of them, however
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

# The store has one connection, so more threads would only wait for one another. The bounds on connections and requests
# bound the calls that wait for a thread.
_threads = ThreadPoolExecutor(8, thread_name_prefix="disk")


def set_disk_threads(count: int) -> None:
    """Set the number of threads (setting ``disk_threads``), before the first one is used."""
    global _threads
    _threads.shutdown(wait=False)
    _threads = ThreadPoolExecutor(count, thread_name_prefix="disk")


def disk_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``call`` in one of the threads, in the caller's context. From the event loop only."""
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(_threads, lambda: context.run(call))
