"""The note that replaces a stream on the disk after its move to another daemon: it holds that daemon's address."""

from __future__ import annotations

__all__ = ["moved_note", "moved_to"]

MAGIC = b"STMV"


def moved_note(url: str) -> bytes:
    return MAGIC + url.encode()


def moved_to(data: bytes) -> str | None:
    """The other daemon's URL; ``None``: these bytes are a stream."""
    return data[len(MAGIC) :].decode() if data.startswith(MAGIC) else None
