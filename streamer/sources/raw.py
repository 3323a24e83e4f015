"""Raw PCM on standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from streamer.likeness import KINDS, Likeness
from streamer.sources import SourceError
from streamer.sources.source import Source

__all__ = ["RawSound"]


class RawSound:
    """PCM s16le mono at ``rate`` Hz, passed on as it comes, without waiting for full blocks. ``say`` gets one warning
    if the bytes look like another format."""

    seconds = 0.0

    def __init__(self, source: Source, rate: int, say: Callable[[str], None]) -> None:
        self.name = "-"
        self.rate = rate
        self._source, self._say = source, say

    def blocks(self) -> Iterator[bytes]:
        """Whole samples. Raises :class:`SourceError` after the last one if half a sample is left over."""
        rest = b""
        total = 0
        likeness = Likeness()
        for data in self._source.pieces(0):
            total += len(data)
            data = rest + data
            whole = len(data) - len(data) % 2
            rest = data[whole:]
            if whole:
                if likeness.push(data[:whole]):
                    self._doubt(likeness)
                yield data[:whole]
        if likeness.end():
            self._doubt(likeness)
        if rest:
            raise SourceError(f"-: {total} bytes are no whole number of 16-bit samples: the last byte was left out")

    def _doubt(self, likeness: Likeness) -> None:
        if likeness.refused is not None:
            raise SourceError(
                f"-: this is {likeness.refused.name}, not raw PCM; give it from its beginning, or as a file"
            )
        self._say(f"-: this looks like {KINDS[likeness.kind]} (raw PCM is 16 bit, little-endian, one channel)")

    def close(self) -> None:
        """Does nothing: standard input belongs to the process."""
