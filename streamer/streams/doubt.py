"""Tests whether a stream of sound is int16 PCM: by its first bytes, and by the statistics of its first seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamer.likeness import KINDS, Likeness
from streamer.metrics import Metrics
from streamer.refusals import NotSound

__all__ = ["Doubt"]


class Doubt:
    """The test of one stream; ``wanted``: False turns it off. ``rate`` of the sound in Hz, for the advice to the
    client."""

    def __init__(self, wanted: bool, rate: int | None, metrics: Metrics) -> None:
        self._rate, self._metrics = rate or 16000, metrics
        self._likeness = Likeness() if wanted else None

    def look(self, data: bytes, warn: Callable[[dict[str, Any]], None]) -> None:
        """Test the next bytes; ``warn`` is called once with the warning event for the client. Raises
        :class:`NotSound`."""
        if self._likeness is None or not self._likeness.push(data):
            if self._likeness is not None and self._likeness.done:
                self._likeness = None
            return
        if (found := self._likeness.refused) is not None:
            self._likeness = Likeness()  # a client that continues all the same is refused again
            if found.way:
                decode = f"ffmpeg -i FILE -f s16le -ac 1 -ar {self._rate} -"
                raise NotSound(f"this is {found.name}, raw PCM is expected (s16le, mono): decode it first ({decode})")
            raise NotSound(f"this is {found.name}, raw PCM is expected (s16le, mono, {self._rate} Hz)")
        kind = self._likeness.kind
        self._metrics.suspected_streams.labels(kind).inc()
        self._likeness = None
        warn({"type": "warning", "code": "looks_like", "format": kind, "message": f"this looks like {KINDS[kind]}"})
