"""Bounds the number of HTTP requests at a time, and the memory of the bodies of all requests together.

A request beyond either bound is answered 503 with ``Retry-After``; its body is read and dropped, because a client that
is still sending would not see the answer. Small, cheap pages that operators need in trouble are always answered.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from streamer.metrics import Metrics

__all__ = ["Account", "Bounds", "RequestMemory", "TooMuchError", "charge"]

ALWAYS = frozenset({"/", "/healthz", "/readyz", "/metrics", "/ping", "/health"})


class TooMuchError(Exception):
    """The bodies of all requests together are at their bound."""


class RequestMemory:
    """Bytes that the bodies of requests of all protocols hold together, at most ``most``. Thread-safe."""

    def __init__(self, metrics: Metrics, most: int) -> None:
        self.metrics, self.most = metrics, most
        self.lock = threading.Lock()  # bodies are unpacked in threads
        self.bytes = 0
        metrics.request_bytes.set_function(lambda: self.bytes)

    @contextmanager
    def account(self) -> Iterator[Account]:
        """An account for one request, or for one stream of requests; at the end all its bytes are released."""
        account = Account(self)
        try:
            yield account
        finally:
            account.close()


class Account:
    """The bytes of the ``memory`` that one request holds. Thread-safe: a thread may still unpack the body of a request
    that is over."""

    __slots__ = ("_bytes", "_closed", "_memory")

    def __init__(self, memory: RequestMemory) -> None:
        self._memory, self._bytes, self._closed = memory, 0, False

    def charge(self, count: int) -> None:
        """Add bytes. Raises :class:`TooMuchError`; then nothing is charged."""
        memory = self._memory
        with memory.lock:
            held = memory.bytes
            if self._closed:
                raise TooMuchError("the request is over")
            if held + count <= memory.most:
                self._bytes += count
                memory.bytes += count
                return
        memory.metrics.refused_requests.labels("bytes").inc()
        raise TooMuchError(
            f"the requests under way hold {held} bytes, of {memory.most} (max_request_memory): try again"
        )

    def release(self, count: int) -> None:
        with self._memory.lock:
            self._bytes -= count
            self._memory.bytes -= count

    def close(self) -> None:
        with self._memory.lock:
            self._memory.bytes -= self._bytes
            self._bytes, self._closed = 0, True


class Bounds:
    """An ASGI application around ``app``. Lives on the event loop; a request may call :func:`charge` from any of its
    threads."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_requests: int, memory: RequestMemory) -> None:
        self._app, self._metrics = app, metrics
        self._max_requests, self._memory = max_requests, memory
        self.requests = 0
        metrics.requests.set_function(lambda: self.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self.requests >= self._max_requests:
            self._metrics.refused_requests.labels("requests").inc()
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
            text = f"{self._max_requests} requests are being answered already (max_requests): try again"
            await JSONResponse({"error": text}, 503, {"Retry-After": "1"})(scope, receive, send)
            return
        account = Account(self._memory)
        token = _ACCOUNT.set(account)
        self.requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.requests -= 1
            _ACCOUNT.reset(token)
            account.close()


_ACCOUNT: ContextVar[Account | None] = ContextVar("request", default=None)


def charge(count: int) -> None:
    """Charge the current HTTP request with ``count`` more bytes, until it is answered. Raises :class:`TooMuchError`."""
    if (account := _ACCOUNT.get()) is not None:
        account.charge(count)
