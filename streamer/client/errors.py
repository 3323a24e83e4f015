"""Errors of a stream, and which of them are transient."""

from __future__ import annotations

__all__ = ["ASLEEP", "PASSING", "PASSING_LATER", "StreamError"]

#: Transient errors: the daemon is starting or stopping, or the connection failed and not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: Also transient once a stream has begun: the slot was taken by another stream while this client was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store", "quota"}
#: The stream is suspended to the disk: the next row wakes it.
ASLEEP = "idle_timeout"


class StreamError(Exception):
    """The stream has failed. ``code``: as on the wire, or ``unreachable``."""

    def __init__(self, code: str, message: str, retry_after: float | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
