"""Any pieces in, chunks of one length out: the buffer of one stream, bounded, with the two ways of being full.

``wait``: a full buffer takes no more (the wire stops reading). ``gap``: the oldest audio goes, down to half the
bound, so that one long gap is made instead of many short ones. The session's lock guards it.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from streamer.refusals import Overflow

__all__ = ["Chunker", "Policy"]

Policy = Literal["wait", "gap"]


class Chunker:
    """``chunk``, ``hop`` and ``bound`` in samples; ``flush`` in steps of one hop each."""

    def __init__(self, chunk: int, hop: int, flush: int, bound: int, policy: Policy, dtype: str = "int16") -> None:
        self.chunk, self.hop, self.flush = chunk, hop, flush
        self.bound = max(bound, 2 * chunk)
        self.policy = policy
        self.length = 0
        self.steps_left = -1  # of an ended stream; -1: it goes on
        self.arrived = 0.0  # monotonic time at which the chunk last taken was complete, 0 if not known
        self._dtype = np.dtype(dtype)
        self._steps = chunk // hop
        self._pieces: deque[NDArray[Any]] = deque()
        self._start = 0  # samples of the first piece that are gone
        self._times: deque[float] = deque()

    @property
    def full(self) -> bool:
        return self.length >= self.bound

    @property
    def ready(self) -> bool:
        """There is a chunk to take."""
        return self.length >= self.chunk or self.steps_left > 0

    @property
    def done(self) -> bool:
        return self.steps_left == 0

    def push(self, samples: NDArray[Any], *, last: bool = False) -> int:
        """Take all samples in; how many old ones were dropped for it. Raises :class:`Overflow` (nothing taken).

        ``last``: what a resampler held back of samples that were taken long ago. It is little, and never refused.
        """
        if self.full and self.policy == "wait" and not last:
            raise Overflow(f"{self.length} samples are waiting already, {self.bound} is the bound")
        whole = self.length // self.chunk
        if len(samples):
            self._pieces.append(samples)
            self.length += len(samples)
            self._times.extend([monotonic()] * (self.length // self.chunk - whole))
        if self.policy == "wait" or self.length <= self.bound:
            return 0
        dropped = self.length - self.bound // 2
        self._skip(dropped)
        while len(self._times) > self.length // self.chunk:
            self._times.popleft()
        return dropped

    def end(self) -> None:
        """No more samples. What is there is followed by zeros: up to the whole hop, then ``flush`` steps."""
        self.steps_left = -(-self.length // self.hop) + self.flush

    def take(self, row: NDArray[Any]) -> int:
        """The next chunk into ``row`` [chunk]; how many of its steps are real, -1 if there is none yet."""
        chunk = self.chunk
        if self.length >= chunk:
            start, stop = self._start, self._start + chunk
            if stop < len(self._pieces[0]):  # the usual case is one copy
                row[:] = self._pieces[0][start:stop]
                self._start = stop
                self.length -= chunk
            else:
                self._copy(row)
                self._skip(chunk)
        elif self.steps_left > 0:
            n = self.length
            self._copy(row[:n])
            row[n:] = 0
            self._skip(n)
        else:
            return -1
        self.arrived = self._times.popleft() if self._times else 0.0
        if self.steps_left < 0:
            return self._steps
        steps = min(self._steps, self.steps_left)
        self.steps_left -= steps
        return steps

    def rest(self) -> NDArray[Any]:
        """A copy of everything that waits."""
        rest = np.empty(self.length, self._dtype)
        self._copy(rest)
        return rest

    def restore(self, pending: NDArray[Any], steps_left: int) -> None:
        """Go on where :meth:`rest` and ``steps_left`` were read."""
        self._pieces = deque([pending])
        self._start = 0
        self.length, self.steps_left = len(pending), steps_left

    def _copy(self, into: NDArray[Any]) -> None:
        at, start = 0, self._start
        for piece in self._pieces:
            if at == len(into):
                break
            part = piece[start : start + len(into) - at]
            into[at : at + len(part)] = part
            at, start = at + len(part), 0

    def _skip(self, count: int) -> None:
        self.length -= count
        self._start += count
        while self._pieces and self._start >= len(self._pieces[0]):
            self._start -= len(self._pieces.popleft())
