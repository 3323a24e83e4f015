"""Threads for what takes long to read, write or resample: few, since the interpreter runs one of them at a time anyhow,
and the event loop has to get it from them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["THREADS", "json_thread", "parse_thread"]

T = TypeVar("T")

#: Bodies that are being read at a time: what they become in Python's memory is many times their bytes.
THREADS = 2

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="parse")
#: Reading JSON gives the interpreter to nobody until it is done; two at a time would have it in turns.
_json = ThreadPoolExecutor(1, thread_name_prefix="json")


def parse_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """``call`` in one of the threads, in the caller's context. From the event loop only."""
    return _in(_threads, call)


def json_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """The same for long JSON: one at a time."""
    return _in(_json, call)


def _in(threads: ThreadPoolExecutor, call: Callable[[], T]) -> asyncio.Future[T]:
    context = contextvars.copy_context()
    return asyncio.get_running_loop().run_in_executor(threads, lambda: context.run(call))
