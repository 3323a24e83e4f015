"""A recording in memory."""

from __future__ import annotations

from streamer.sources.source import Source

__all__ = ["MemorySource"]


class MemorySource(Source):
    """A :class:`Source` that reads bytes in memory, which must not change."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self.size = len(self._data)
        self._at = 0

    def close(self) -> None:
        self._data = memoryview(b"")

    def _pread(self, position: int, count: int) -> bytes:
        return bytes(self._data[position : position + max(0, count)])
