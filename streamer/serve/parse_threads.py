"""A few threads for long reading, writing or resampling: the interpreter runs only one thread at a time, and the event
loop competes with them for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["THREADS", "json_thread", "parse_thread"]

T = TypeVar("T")

#: Bodies that are read at a time: in Python's memory they take many times their bytes.
THREADS = 2

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="parse")
#: Reading JSON holds the interpreter until it is done; two threads would only take turns.
_json = ThreadPoolExecutor(1, thread_name_prefix="json")


def parse_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run ``call`` in one of the threads, in the caller's context. From the event loop only."""
    return _in(_threads, call)


def json_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """As :func:`parse_thread`, for long JSON: one call at a time."""
    return _in(_json, call)


def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> asyncio.Future[T]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(call))
