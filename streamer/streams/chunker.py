"""The bounded buffer of one stream: takes pieces of any length, gives chunks of one length. Two modes of overflow:

``wait``: a full buffer takes no more (the wire stops reading). ``gap``: the oldest rows are dropped, down to half the
bound, so that there is one long gap instead of many short ones. The session's lock guards it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from streamer.refusals import Overflow
from streamer.streams.pace import Pace

__all__ = ["Chunker", "Policy"]

Policy = Literal["wait", "gap"]


class Chunker:
    """``chunk``, ``hop`` and ``bound`` in rows of ``dtype``; ``flush`` in steps of one hop each. ``chunk_seconds`` of
    real time, 0: no clock."""

    def __init__(
        self,
        chunk: int,
        hop: int,
        flush: int,
        bound: int,
        policy: Policy,
        dtype: DTypeLike = "<i2",
        chunk_seconds: float = 0.0,
    ) -> None:
        self.chunk, self.hop, self.flush = chunk, hop, flush
        self.bound = max(bound, 2 * chunk)
        self.policy = policy
        self.length = 0
        self.steps_left = -1  # of an ended stream; -1: not ended
        self.arrived = 0.0  # monotonic time at which the chunk last taken was complete, 0 if not known
        self.was_due = 0.0  # and at which it was due
        self.dtype = np.dtype(dtype)
        self._steps = chunk // hop
        self._pieces: deque[NDArray[Any]] = deque()
        self._start = 0  # rows of the first piece that are gone
        self._times: deque[tuple[float, float]] = deque()  # of whole chunks: when each was complete, and is due
        self._pace = Pace(chunk_seconds)

    @property
    def full(self) -> bool:
        return self.length >= self.bound

    @property
    def ready(self) -> bool:
        """There is a chunk to take."""
        return self.length >= self.chunk or self.steps_left > 0

    @property
    def due(self) -> float:
        """Monotonic time at which the next chunk, or the end, is due; 0 if not known."""
        return self._times[0][1] if self._times else self._pace.last

    @property
    def whole(self) -> int:
        """Rows of the whole chunks that wait."""
        return self.length // self.chunk * self.chunk

    @property
    def done(self) -> bool:
        return self.steps_left == 0

    def push(self, rows: NDArray[Any], *, last: bool = False) -> int:
        """Add all rows; returns the number of old rows dropped for them. Raises :class:`Overflow` (nothing taken).

        ``last``: the rest of a resampler, from samples that were accepted earlier. It is short, and never refused.
        """
        if self.full and self.policy == "wait" and not last:
            raise Overflow(f"{self.length} rows are waiting already, {self.bound} is the bound")
        whole = self.length // self.chunk
        if len(rows):
            self._pieces.append(rows)
            self.length += len(rows)
            for _ in range(self.length // self.chunk - whole):
                now = monotonic()
                self._times.append((now, self._pace.due(now)))
        if self.policy == "wait" or self.length <= self.bound:
            return 0
        dropped = self.length - self.bound // 2
        self._skip(dropped)
        while len(self._times) > self.length // self.chunk:
            self._times.popleft()
        return dropped

    def end(self) -> None:
        """No more rows. Zeros follow the waiting rows: up to a whole hop, then ``flush`` steps."""
        self.steps_left = -(-self.length // self.hop) + self.flush

    def take(self, into: Mapping[str, NDArray[Any]]) -> int:
        """Copy the next chunk into ``into``, by input [chunk, ...]; returns the number of its real steps, -1 without a
        chunk.

        For rows of one number ``into`` has one input, of any name.
        """
        chunk = self.chunk
        if self.length >= chunk:
            first, start, stop = self._pieces[0], self._start, self._start + chunk
            if stop <= len(first):  # the usual case is one copy
                _write(first[start:stop], into, 0)
                self.length -= chunk
                if stop < len(first):
                    self._start = stop
                else:
                    self._pieces.popleft()
                    self._start = 0
            else:
                self._copy(into, chunk)
                self._skip(chunk)
        elif self.steps_left > 0:
            n = self.length
            self._copy(into, n)
            for row in into.values():
                row[n:] = 0
            self._skip(n)
        else:
            return -1
        self.arrived, self.was_due = self._times.popleft() if self._times else (0.0, 0.0)
        if self.steps_left < 0:
            return self._steps
        steps = min(self._steps, self.steps_left)
        self.steps_left -= steps
        return steps

    def rest(self) -> NDArray[Any]:
        """A copy of all waiting rows."""
        rest = np.empty(self.length, self.dtype)
        fields = {"": rest} if self.dtype.names is None else {name: rest[name] for name in self.dtype.names}
        self._copy(fields, self.length)
        return rest

    def restore(self, pending: NDArray[Any], steps_left: int) -> None:
        """Continue from what :meth:`rest` and ``steps_left`` gave."""
        self._pieces = deque([pending])
        self._start = 0
        self.length, self.steps_left = len(pending), steps_left

    def _copy(self, into: Mapping[str, NDArray[Any]], count: int) -> None:
        at, start = 0, self._start
        for piece in self._pieces:
            if at == count:
                break
            part = piece[start : start + count - at]
            _write(part, into, at)
            at, start = at + len(part), 0

    def _skip(self, count: int) -> None:
        self.length -= count
        self._start += count
        while self._pieces and self._start >= len(self._pieces[0]):
            self._start -= len(self._pieces.popleft())


def _write(rows: NDArray[Any], into: Mapping[str, NDArray[Any]], at: int) -> None:
    end = at + len(rows)
    if rows.dtype.names is None:
        for array in into.values():
            array[at:end] = rows
    else:
        for name, array in into.items():
            array[at:end] = rows[name]
