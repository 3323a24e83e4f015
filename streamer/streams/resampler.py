"""A streaming resampler whose output does not depend on how its input was cut, and whose memory is plain samples.

A resampler with a filter's memory inside can't be saved and rounds differently with every chunk size. So the input
is taken on a fixed grid of blocks (about 20 ms, a whole number of periods of both rates): each block is resampled by
itself with soxr, with the neighbouring samples as context, and the context is cut off again. So each output sample
depends on its absolute position alone.
"""

from __future__ import annotations

import math

import numpy as np
import soxr
from numpy.typing import NDArray

from streamer.refusals import RateError
from streamer.tasks.snapshot import pack, unpack

__all__ = ["HIGHEST_RATE", "Resampler"]

HIGHEST_RATE = 192_000
BLOCK_SECONDS = 0.02
#: Reach of soxr's high-quality filter: beyond this its response is inaudible.
CONTEXT_SECONDS = 0.01

Samples = NDArray[np.int16]


class Resampler:
    """int16 mono at ``rate_in`` Hz to int16 mono at ``rate_out`` Hz; equal rates change nothing.

    After :meth:`finish`, ``ceil(n * rate_out / rate_in)`` samples have come out for ``n`` that went in. Before, up to a
    block and its context are held back: 30 ms at the usual rates, up to 2 s where the rates have no common divisor.
    """

    def __init__(self, rate_in: int, rate_out: int, lowest: int | None = None) -> None:
        """Raises :class:`RateError` when ``rate_in`` can't be served; ``lowest``: lowest rate (default:
        ``rate_out``)."""
        lowest = lowest or rate_out
        if rate_in < lowest:
            raise RateError(
                f"the model hears up to {lowest // 2} Hz, which {rate_in} samples a second do not carry: "
                f"record at {lowest} Hz or take a model for {rate_in} Hz"
            )
        if rate_in > HIGHEST_RATE:
            raise RateError(f"{rate_in} samples a second are no sound: {HIGHEST_RATE} Hz is the highest rate")
        self.rate_in, self.rate_out = rate_in, rate_out
        periods = math.gcd(rate_in, rate_out)  # a second has this many stretches of whole samples at both rates
        block, context = (max(1, round(periods * seconds)) for seconds in (BLOCK_SECONDS, CONTEXT_SECONDS))
        self._in, self._out = block * rate_in // periods, block * rate_out // periods
        self._context_in, self._context_out = context * rate_in // periods, context * rate_out // periods
        self._received = self._given = 0
        self._tail = np.zeros(self._context_in, np.int16)  # from a context before the next block on

    def push(self, pcm: Samples) -> Samples:
        """Add ``pcm`` [n]; returns the output samples that are final by now."""
        self._received += len(pcm)
        if self.rate_in == self.rate_out:
            self._given = self._received
            return pcm
        self._tail = np.concatenate([self._tail, pcm])
        return self._blocks()

    def finish(self) -> Samples:
        """The remaining output, as if silence followed. The stream ends here: no more samples may be pushed."""
        if self.rate_in == self.rate_out:
            return np.zeros(0, np.int16)
        left = -(-self._received * self.rate_out // self.rate_in) - self._given
        missing = self._in + 2 * self._context_in - len(self._tail)
        silence = np.zeros(max(0, missing) + self._in, np.int16)
        self._tail = np.concatenate([self._tail, silence])
        return self._blocks()[:left]

    def _blocks(self) -> Samples:
        """Resample every block whose right context is there, and keep what the next one needs."""
        span, done = self._in + 2 * self._context_in, []
        first = 0
        while first + span <= len(self._tail):
            sound = self._tail[first : first + span].astype(np.float32)  # floats: soxr dithers what it rounds itself
            other = soxr.resample(sound, self.rate_in, self.rate_out, quality="HQ")
            done.append(other[self._context_out : self._context_out + self._out])
            first += self._in
        if not done:
            return np.zeros(0, np.int16)
        self._tail = self._tail[first:].copy()
        result: Samples = np.clip(np.rint(np.concatenate(done)), -32768, 32767).astype(np.int16)
        self._given += len(result)
        return result

    def save(self) -> bytes:
        """The whole memory: the same memory gives the same bytes."""
        return pack({"rates": [self.rate_in, self.rate_out], "counts": [self._received, self._given]}, [self._tail])

    def load(self, data: bytes) -> None:
        """Continue from a saved memory. Raises ``ValueError`` if it is not of a resampler between the same rates."""
        facts, arrays = unpack(data)
        if facts.get("rates") != [self.rate_in, self.rate_out] or [a.dtype.str for a in arrays] != ["<i2"]:
            raise ValueError(f"not the memory of a resampler from {self.rate_in} to {self.rate_out} Hz")
        (self._tail,) = arrays
        self._received, self._given = (int(count) for count in facts["counts"])
