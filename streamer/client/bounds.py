"""How a client reaches a daemon, and what bounds it."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

__all__ = ["ReplayBounds"]


class ReplayBounds(TypedDict, total=False):
    """How the daemon is reached, and how long it may take.

    ``token`` (None: $STREAMER_TOKEN) and ``ca`` (None: $STREAMER_CA, else the system's): who we are, and the
    certificates (a PEM file) to trust of a daemon at wss://.

    ``max_unacked_bytes`` (64 MiB) bounds the replay buffer: senders wait for acknowledgements when it is full.
    ``retry_seconds`` (60) is how long the daemon may be away before :class:`StreamError` ``unreachable``; between two
    tries ``first_delay`` (0.1) to ``max_delay`` (5) seconds.

    ``hello_seconds`` (30): how long the daemon may take to answer a start or resume. ``silence_seconds`` (60; 0:
    never): a connection on which nothing comes for so long, not even a ping, is made again; it has to be longer than
    the daemon's ``ping_seconds`` (20). ``close_seconds`` (10): how long leaving the ``async with`` block waits until
    the daemon has taken what was sent."""

    token: str | None
    ca: str | Path | None
    max_unacked_bytes: int
    retry_seconds: float
    first_delay: float
    max_delay: float
    hello_seconds: float
    silence_seconds: float
    close_seconds: float
