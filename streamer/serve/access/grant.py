"""What the holder of a token may do, and how much of its limits is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from starlette.types import Message, Receive, Scope

from streamer.names import SEPARATOR, stream_id
from streamer.refusals import Refused
from streamer.serve.access.limits import Allowance
from streamer.serve.access.tokens import AccessScope, Token

__all__ = ["ANYONE", "Denied", "Grant", "grant_of"]


class Denied(Exception):  # noqa: N818
    """A request that is refused. ``status``: HTTP's; ``reason``: for the metrics; ``retry_after`` in seconds."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def headers(self) -> dict[str, str]:
        found = {} if self.retry_after is None else {"Retry-After": str(max(1, ceil(self.retry_after)))}
        return found | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class Grant:
    """The rights of a token, valid as long as the token exists; or of everybody, where no token is needed. For the
    event loop.

    ``owner``: the owner whose streams it opens and sees, "" where no token is needed. ``revoked``: the token is gone,
    and the connections that it opened are to be closed.
    """

    def __init__(self, token: Token | None, clock: Callable[[], float] = monotonic) -> None:
        self.token, self.owner, self.revoked = token, "" if token is None else token.owner, False
        self.generating = 0  # streams of /v1/generate, which have no names
        requests = None if token is None else token.requests_per_second
        data = None if token is None else token.bytes_per_second
        self._requests = None if requests is None else Allowance(requests, requests, clock)
        self.bytes = None if data is None else Allowance(data, data, clock)

    @property
    def max_streams(self) -> int | None:
        return None if self.token is None else self.token.max_streams

    def may(self, *scopes: AccessScope) -> bool:
        return self.token is None or not scopes or self.token.may(*scopes)

    def own(self, name: str) -> str:
        """The id of the owner's stream with this name. Raises :class:`Refused`."""
        if SEPARATOR in name:
            raise Refused("key", f"{name[:40]!a} is not a name (1 to 200 printable characters)")
        return stream_id(self.owner, name)

    @contextmanager
    def generated(self) -> Iterator[None]:
        """Count a stream of ``/v1/generate`` while it runs."""
        self.generating += 1
        try:
            yield
        finally:
            self.generating -= 1

    def check_generated(self) -> None:
        """Raises :class:`Denied` if the token has as many generated streams as it may."""
        if self.max_streams is not None and self.generating >= self.max_streams:
            text = f"this token has {self.max_streams} generated streams already (max_streams): end one, or wait"
            raise Denied(429, "streams", text, 1.0)

    def request(self) -> None:
        """Count a request. Raises :class:`Denied` for too many requests or bytes a second."""
        assert self.token is not None or (self._requests is None and self.bytes is None)
        if self.bytes is not None and (wait := self.bytes.wait()):
            text = f"this token has sent more than {self.bytes.rate:g} bytes a second (bytes_per_second): wait"
            raise Denied(429, "bytes", text, wait)
        if self._requests is not None:
            if wait := self._requests.wait():
                text = f"this token has sent more than {self._requests.rate:g} requests a second: wait"
                raise Denied(429, "rate", f"{text} (requests_per_second)", wait)
            self._requests.take(1)

    def spend(self, count: int) -> float:
        """Count received bytes; the seconds for which no more should be read."""
        return 0.0 if self.bytes is None else self.bytes.take(count)

    def metered(self, receive: Receive) -> Receive:
        """``receive`` with the bodies counted."""
        if self.bytes is None:
            return receive

        async def counted() -> Message:
            message = await receive()
            self.spend(len(message.get("body", b"")))
            return message

        return counted


#: The grant where no token is needed.
ANYONE = Grant(None)


def grant_of(scope: Scope) -> Grant:
    """The request's grant. A request that did not pass the gate is a test's, or this process's own."""
    found: Grant = scope.get("grant", ANYONE)
    return found
