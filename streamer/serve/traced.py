"""A span around every HTTP request, in front of all other layers."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streamer import tracing
from streamer.serve.bounds import ALWAYS
from streamer.serve.headers import headers_of

__all__ = ["Traced", "request_headers"]


class Traced:
    """An ASGI application in front of ``app``. Health and metrics pages get no span."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS or tracing.tracer() is None:
            await self._app(scope, receive, send)
            return
        what = {"http.request.method": scope["method"], "url.path": scope["path"]}
        span = tracing.begin("request", what, request_headers(headers_of(scope)))
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with tracing.under(span):
                await self._app(scope, receive, noted)
        finally:
            if span is not None:
                failed = str(status or "no answer") if status == 0 or status >= 500 else ""
                span.end(failed, **{"http.response.status_code": status})


def request_headers(headers: dict[str, str]) -> dict[str, str]:
    """Only the headers of the trace: tokens are left out."""
    return {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
