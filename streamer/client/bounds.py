"""Access, buffer and time limits of a client."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

__all__ = ["ReplayBounds"]


class ReplayBounds(TypedDict, total=False):
    """Keyword arguments of all clients, with their defaults.

    ``token`` (None: $STREAMER_TOKEN): the access token. ``ca`` (None: $STREAMER_CA, else the system's): the
    certificates (a PEM file) that a daemon at wss:// is checked with.

    ``max_unacked_bytes`` (64 MiB) bounds the replay buffer: senders wait for acknowledgements when it is full.
    ``retry_seconds`` (60): how long the daemon may be unreachable before :class:`StreamError` ``unreachable`` is
    raised. The delay between two attempts grows from ``first_delay`` (0.1) to ``max_delay`` (5) seconds.

    ``hello_seconds`` (30): how long the daemon may take to answer a start or resume. ``silence_seconds`` (60; 0:
    never): the client reconnects after this time without any data, pings included; it must exceed the daemon's
    ``ping_seconds`` (20). ``close_seconds`` (10): how long leaving the ``async with`` block waits until the daemon has
    read everything that was sent."""

    token: str | None
    ca: str | Path | None
    max_unacked_bytes: int
    retry_seconds: float
    first_delay: float
    max_delay: float
    hello_seconds: float
    silence_seconds: float
    close_seconds: float
