"""The received rows of one stream that are not yet run, and its positions. The session's lock guards them.

Two counts: the client's rows (``received``, every position that a client gets) and the model's (``consumed``), which
differ where sound is resampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from numpy.typing import NDArray

from streamer.contract.manifest import Manifest
from streamer.streams.chunker import Chunker, Policy
from streamer.streams.delivery import Late
from streamer.streams.front import is_sound, make_front
from streamer.streams.snapshot import Snapshot

__all__ = ["DEFAULT_LIMITS", "Intake", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one stream's buffer: ``buffered_seconds`` of sound, ``buffered_bytes`` of any other rows."""

    buffered_seconds: float = 10.0
    buffered_bytes: int = 2**20
    replay_events: int = 256
    replay_bytes: int = 2**22
    markers: int = 256


DEFAULT_LIMITS = Limits()


class Intake:
    """``sample_rate`` of the client in Hz, ``None``: the model's own. Raises :class:`RateError`.

    ``received``: the client's rows that were accepted. ``consumed``: the model's rows that were run. ``origin``: where
    the task's memory begins, after the last gap. ``dropped``: rows that the next ``gap`` will report. ``safe``: the
    client's rows that were acknowledged as on the disk. ``in_flight``: a chunk is being run.
    """

    def __init__(self, manifest: Manifest, sample_rate: int | None, policy: Policy, limits: Limits) -> None:
        self.received = self.consumed = self.origin = self.dropped = self.safe = 0
        self.in_flight = False
        self.sound = is_sound(manifest)
        #: Seconds of one of the model's rows; 0 without a clock.
        self.row_seconds = manifest.chunk_seconds / manifest.chunk
        self._front = make_front(manifest, sample_rate)
        dtype = manifest.row_dtype
        seconds, size = limits.buffered_seconds, limits.buffered_bytes
        bound = round(seconds / self.row_seconds) if self.sound else size // dtype.itemsize
        clock = manifest.chunk_seconds
        self._chunker = Chunker(manifest.chunk, manifest.hop, manifest.flush, bound, policy, dtype, clock)
        self._latency = manifest.latency * manifest.hop
        self._taken = 0
        self._was_full = False

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """The model's rows that no lane has taken."""
        return self._chunker.length

    @property
    def exact(self) -> bool:
        """Whether the client's rows are the model's."""
        return self._front.exact

    @property
    def full(self) -> bool:
        return self._chunker.policy == "wait" and self._chunker.full

    @property
    def ready(self) -> bool:
        return self._chunker.ready

    @property
    def ending(self) -> bool:
        """No more rows will come."""
        return self._chunker.steps_left >= 0

    @property
    def done(self) -> bool:
        """No more rows will come, and all have been taken."""
        return self._chunker.done

    @property
    def due(self) -> bool:
        """A lane has work to do: a chunk, or the end."""
        return self._chunker.ready or self._chunker.done

    @property
    def arrived(self) -> float:
        """Monotonic time at which the chunk last taken was complete; 0 if not known."""
        return self._chunker.arrived

    @property
    def deadline(self) -> float:
        """Monotonic time at which a lane's next work is due; 0 if not known."""
        return self._chunker.due

    @property
    def lateness(self) -> float:
        """Seconds since the chunk last taken was due; 0 if it is not due yet, or not known."""
        return max(0.0, monotonic() - self._chunker.was_due) if self._chunker.was_due else 0.0

    @property
    def position(self) -> int:
        """Position of the decoded rows, in the client's rows."""
        return min(self.received, self._front.to_client(self.consumed))

    @property
    def decoded_at(self) -> int:
        """``consumed`` once all received rows are decoded."""
        return self._front.to_model(self.received) + self._latency

    @property
    def late(self) -> Late:
        """Where the task's memory begins; a model without a clock counts its time in steps."""
        steps = self.origin // self._chunker.hop
        return Late(self.origin * self.row_seconds or float(steps), self.origin, steps)

    @property
    def taken(self) -> int:
        """Real rows of the chunk last taken; padding follows them."""
        return self._taken

    @property
    def run_at(self) -> int:
        """``consumed`` once every whole chunk of the received rows is run."""
        return self.consumed + (self._taken if self.in_flight else 0) + self.dropped + self._chunker.whole

    # -- rows --------------------------------------------------------------------------------------------------------

    def push(self, rows: NDArray[Any]) -> None:
        """Raises :class:`Overflow`; nothing is taken then."""
        self.dropped += self._chunker.push(self._front.push(rows))
        self.received += len(rows)
        self._was_full = self._was_full or self._chunker.full

    def end(self) -> None:
        self.dropped += self._chunker.push(self._front.finish(), last=True)
        self._chunker.end()

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        """The next chunk, as :meth:`Chunker.take`."""
        before = self._chunker.length
        steps = self._chunker.take(rows)
        self._taken = before - self._chunker.length
        self.in_flight = steps >= 0
        return steps

    def reserve(self) -> None:
        """A lane has taken the stream, and has no chunk of it yet."""
        self._taken, self.in_flight = 0, True

    def ran(self) -> int:
        """The chunk in flight is back; returns its number of rows."""
        self.in_flight = False
        self.consumed += self._taken
        return self._taken

    def skip(self) -> int:
        """Skip the dropped rows; returns their number, in the model's rows."""
        dropped, self.dropped = self.dropped, 0
        self.consumed += dropped
        self.origin = self.consumed
        return dropped

    def to_client(self, rows: int) -> int:
        return self._front.to_client(rows)

    def drained(self) -> bool:
        """True once after a full buffer is half empty again."""
        if not self._was_full or 2 * self._chunker.length > self._chunker.bound:
            return False
        self._was_full = False
        return True

    # -- asleep ------------------------------------------------------------------------------------------------------

    def save(self, whole: bool) -> dict[str, Any]:
        """The intake's fields of a :class:`Snapshot`. Not ``whole``: only the first two chunks of the waiting rows, as
        if no more had come; but all ``safe`` rows, which the client has no longer."""
        pending, received, steps_left = self._chunker.rest(), self.received, self._chunker.steps_left
        excess = min(len(pending) - 2 * self._chunker.chunk, received - self.safe)
        if not whole and excess > 0 and self._front.exact:  # a resampler's memory covers all rows that it was given
            pending, received, steps_left = pending[:-excess], received - excess, -1
        return {
            "received": received,
            "consumed": self.consumed,
            "origin": self.origin,
            "dropped": self.dropped,
            "steps_left": steps_left,
            "pending": pending,
            "resampler": self._front.save(),
        }

    def load(self, saved: Snapshot) -> None:
        """Raises ``ValueError`` for a snapshot of another model or rate."""
        pending = saved.rows(self._chunker.dtype)
        self._front.load(saved.resampler)
        self.received = self.safe = saved.received
        self.consumed = saved.consumed
        self.origin, self.dropped = saved.origin, saved.dropped
        self._chunker.restore(pending, saved.steps_left)
        self._was_full = self._chunker.full  # else a client that finds the buffer full is never told when to continue
