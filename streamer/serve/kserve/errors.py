"""Errors of KServe v2 requests."""

from __future__ import annotations

__all__ = ["KServeError"]


class KServeError(Exception):
    """A failed request. ``status``: HTTP's, mapped to gRPC's. ``retry_after``: seconds, if trying again may help."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after
