"""A client's replay buffer, in order: frames that are sent and not yet acknowledged, then frames not yet sent."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Item", "ReplayBuffer"]


class Item(NamedTuple):
    """A frame. ``start`` and ``end`` in rows; equal for control frames."""

    start: int
    end: int
    data: bytes | str


class ReplayBuffer:
    """``held``: total size of the frames in bytes. ``acknowledged``: the rows before this position are on the daemon's
    disk."""

    def __init__(self) -> None:
        self.held = self.acknowledged = 0
        self._unacked: deque[Item] = deque()  # sent, not yet acknowledged
        self._outgoing: deque[Item] = deque()  # not yet sent on this connection

    def __bool__(self) -> bool:
        return bool(self._unacked or self._outgoing)

    @property
    def waiting(self) -> bool:
        """Whether there is a frame to send."""
        return bool(self._outgoing)

    def put(self, item: Item) -> None:
        self.held += len(item.data)
        self._outgoing.append(item)

    def send_next(self) -> bytes | str:
        """Take the next frame and mark it as sent."""
        item = self._outgoing.popleft()
        self._unacked.append(item)
        return item.data

    def rewind(self, position: int, row_bytes: int) -> None:
        """The daemon resumes at row ``position``: mark the frames after it as not sent.

        Control frames exactly at the position are sent again too, since it is unknown whether they arrived; the daemon
        ignores repeats. Frames before it stay until they are acknowledged: after a crash the position may be earlier.
        """
        kept: deque[Item] = deque()
        again: deque[Item] = deque()
        for item in (*self._unacked, *self._outgoing):
            if isinstance(item.data, str):
                (kept if item.end < position else again).append(item)
            elif item.start < position < item.end:
                cut = row_bytes * (position - item.start)
                kept.append(Item(item.start, position, item.data[:cut]))
                again.append(Item(position, item.end, item.data[cut:]))
            else:
                (kept if item.end <= position else again).append(item)
        self._unacked, self._outgoing = kept, again

    def acknowledge(self, position: int) -> None:
        """Drop the frames that end at row ``position`` or before it; control frames exactly there stay."""
        self.acknowledged = max(self.acknowledged, position)
        while self._unacked:
            item = self._unacked[0]
            if item.end > position or (item.start == item.end == position):
                break
            self._unacked.popleft()
            self.held -= len(item.data)
