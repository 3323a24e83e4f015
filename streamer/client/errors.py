"""The error of a failed stream, and the codes that are transient."""

from __future__ import annotations

__all__ = ["ASLEEP", "MOVED", "PASSING", "PASSING_LATER", "StreamError"]

#: Transient errors: the daemon is starting or stopping, or the connection failed but not the stream.
PASSING = frozenset({"starting", "draining", "not_reading", "start_timeout"})
#: Also transient once a stream has begun: the slot was taken by another stream while this client was away.
PASSING_LATER = PASSING | {"capacity", "overload", "store", "quota"}
#: The stream is suspended to disk: the next row wakes it.
ASLEEP = frozenset({"idle_timeout", "evicted"})
#: The stream continues at another daemon; the error carries its URL.
MOVED = "moved"


class StreamError(Exception):
    """The stream has failed. ``code``: as on the wire, or ``unreachable``, ``refused``, ``lost``, ``gap``, ``ended``,
    ``closed``, ``internal``. ``retry_after``: seconds. ``url``: the daemon to which the stream has moved."""

    def __init__(self, code: str, message: str, retry_after: float | None = None, url: str | None = None):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.url = url
