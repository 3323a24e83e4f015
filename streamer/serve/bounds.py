"""How many requests there are at a time, and how much memory their bodies take together.

A request beyond either is answered 503 with ``Retry-After``; its body is read and dropped, because a client that is
still sending would not see the answer. Pages that are small, cheap and wanted in trouble are always answered.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from streamer.metrics import Metrics

__all__ = ["Bounds", "TooMuchError", "charge"]

ALWAYS = frozenset({"/", "/healthz", "/readyz", "/metrics"})


class TooMuchError(Exception):
    """The bodies of all requests together are at their bound."""


class Bounds:
    """An ASGI application around ``app``. Lives on the event loop; :func:`charge` may be called from any thread of a
    request's."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_requests: int, max_bytes: int) -> None:
        self._app, self._metrics = app, metrics
        self._max_requests, self.max_bytes = max_requests, max_bytes
        self.lock = threading.Lock()  # bodies are unpacked in threads
        self.requests = self.bytes = 0
        metrics.requests.set_function(lambda: self.requests)
        metrics.request_bytes.set_function(lambda: self.bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self.requests >= self._max_requests:
            self.refuse("requests")
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
            text = f"{self._max_requests} requests are being answered already (max_requests): try again"
            await JSONResponse({"error": text}, 503, {"Retry-After": "1"})(scope, receive, send)
            return
        account = _Account(self)
        token = _ACCOUNT.set(account)
        self.requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.requests -= 1
            with self.lock:
                self.bytes -= account.bytes
            _ACCOUNT.reset(token)

    def refuse(self, reason: str) -> None:
        self._metrics.refused_requests.labels(reason).inc()


class _Account:
    __slots__ = ("bounds", "bytes")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.bytes = bounds, 0


_ACCOUNT: ContextVar[_Account | None] = ContextVar("request", default=None)


def charge(count: int) -> None:
    """The request under way holds ``count`` bytes more, until it is answered. Raises :class:`TooMuchError`."""
    account = _ACCOUNT.get()
    if account is None:
        return
    bounds = account.bounds
    with bounds.lock:
        if bounds.bytes + count <= bounds.max_bytes:
            account.bytes += count
            bounds.bytes += count
            return
    bounds.refuse("bytes")
    raise TooMuchError(
        f"the requests under way hold {bounds.bytes} bytes, of {bounds.max_bytes} (max_request_memory): try again"
    )
