"""Why a stream can't go on, and which reasons pass."""

from __future__ import annotations

__all__ = ["ASLEEP", "PASSING", "PASSING_LATER", "StreamError"]

#: Errors that pass: the daemon is starting or going down, or this connection was the trouble and not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: And these, once a stream has begun: somebody took the slot while the daemon was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store", "quota"}
#: The stream is on the disk and only sleeps: the next row wakes it.
ASLEEP = "idle_timeout"


class StreamError(Exception):
    """The stream can't go on. ``code`` as on the wire, or ``unreachable``."""

    def __init__(self, code: str, message: str, retry_after: float | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
