"""What a client of KServe v2 is told when its request can't be answered."""

from __future__ import annotations

__all__ = ["KServeError"]


class KServeError(Exception):
    """``status`` as HTTP has it; gRPC's is made of it. ``retry_after`` in seconds where trying again may help."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
