"""Why a stream can't go on, and which reasons pass."""

from __future__ import annotations

__all__ = ["ASLEEP", "MOVED", "PASSING", "PASSING_LATER", "StreamError"]

#: Errors that pass: the daemon is starting or going down, or this connection was the trouble and not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: And these, once a stream has begun: somebody took the slot while the daemon was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store"}
#: The stream is on the disk and only sleeps: the next row wakes it.
ASLEEP = frozenset({"idle_timeout", "evicted"})
#: The stream goes on at another daemon: its URL comes with it.
MOVED = "moved"


class StreamError(Exception):
    """The stream can't go on. ``code`` as on the wire, or ``unreachable``. ``url``: where it has moved to."""

    def __init__(self, code: str, message: str, retry_after: float | None = None, url: str | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.url = url
