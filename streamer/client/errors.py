"""Errors of a stream, and which of them are transient."""

from __future__ import annotations

__all__ = ["ASLEEP", "MOVED", "PASSING", "PASSING_LATER", "StreamError"]

#: Transient errors: the daemon is starting or stopping, or the connection failed and not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: Also transient once a stream has begun: the slot was taken by another stream while this client was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store", "quota"}
#: The stream is suspended to the disk: the next row wakes it.
ASLEEP = frozenset({"idle_timeout", "evicted"})
#: The stream goes on at another daemon: its URL comes with it.
MOVED = "moved"


class StreamError(Exception):
    """The stream has failed. ``code``: as on the wire, or ``unreachable``. ``url``: where it has moved to."""

    def __init__(self, code: str, message: str, retry_after: float | None = None, url: str | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.url = url
