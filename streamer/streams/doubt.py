"""Whether a stream of sound is int16 at all: its first bytes, and what its first seconds look like."""

from __future__ import annotations

from typing import Any

from streamer.likeness import KINDS, Likeness
from streamer.metrics import Metrics
from streamer.refusals import NotSound

__all__ = ["Doubt"]


class Doubt:
    """Of one stream, until it is ``over``. ``rate``: of the sound, in Hz, for what the client should do."""

    def __init__(self, rate: int | None, metrics: Metrics) -> None:
        self._rate, self._metrics = rate or 16000, metrics
        self._likeness = Likeness()

    @property
    def over(self) -> bool:
        """Nothing more is looked at."""
        return self._likeness.done

    def look(self, data: bytes) -> dict[str, Any] | None:
        """The next bytes; the event that the client is warned by. Raises :class:`NotSound`."""
        if not self._likeness.push(data):
            return None
        if (found := self._likeness.refused) is not None:
            self._likeness = Likeness()  # whoever goes on all the same is refused again
            if found.way:
                decode = f"ffmpeg -i FILE -f s16le -ac 1 -ar {self._rate} -"
                raise NotSound(f"this is {found.name}, raw PCM is expected (s16le, mono): decode it first ({decode})")
            raise NotSound(f"this is {found.name}, raw PCM is expected (s16le, mono, {self._rate} Hz)")
        kind = self._likeness.kind
        self._metrics.suspected_streams.labels(kind).inc()
        return {"type": "warning", "code": "looks_like", "format": kind, "message": f"this looks like {KINDS[kind]}"}
