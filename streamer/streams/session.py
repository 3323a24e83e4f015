"""One stream: buffer, positions, a place in the engine, the task's memory.

Three kinds of threads meet here: the wire feeds, a lane takes chunks and delivers results, the registry takes
snapshots. One lock (reentrant, held for microseconds, never across a run) orders them, and the sink is called under
it, so that events leave in the order of their numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.engine import Engine, Stream
from streamer.refusals import BadInput, NoSlot, Overflow
from streamer.streams.chunker import Chunker, Policy
from streamer.streams.delivery import Delivery, Markers, Sink, to_dict
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.tasks import Event

__all__ = ["Limits", "Session", "Sink"]


@dataclass(frozen=True)
class Limits:
    buffered_seconds: float = 10.0
    replay_events: int = 256
    markers: int = 256


class Session:
    """Made by the registry only. Attributes are read-only outside.

    ``sink``: where events go, ``None`` while the client is away. ``received``: samples accepted, the client's rate.
    ``seq``: number of the last event. ``version`` grows with every change. Raises :class:`NoSlot`, or ``ValueError``
    for options or a rate that can't be served.
    """

    def __init__(
        self,
        id: str,
        engine: Engine,
        *,
        sample_rate: int,
        overflow: Policy = "wait",
        options: Mapping[str, Any] | None = None,
        limits: Limits = Limits(),
        sink: Sink | None = None,
        on_close: Callable[[Session, str], None] = lambda session, reason: None,
        snapshot: Snapshot | None = None,
    ) -> None:
        manifest = engine.manifest
        assert manifest.input.sample_rate is not None
        self.id, self.model, self.sample_rate, self.overflow = id, manifest.name, sample_rate, overflow
        self.options = dict(options or {})
        self.received = self.version = 0
        self.state = "active"  # active, ended, or closed
        self.worthless = False  # given up for good: no snapshot of it may stay
        self.last_audio = monotonic()
        #: Called from a lane when a buffer that was full is half empty again: read on. Must not block.
        self.on_drained: Callable[[], None] | None = None
        self._engine, self._on_close = engine, on_close
        self._rate = manifest.input.sample_rate
        self._resampler = _resampler(sample_rate, self._rate, engine.manifest.input.lowest_rate)
        bound = round(limits.buffered_seconds * self._rate)
        self._chunker = Chunker(manifest.chunk, manifest.hop, manifest.flush, bound, overflow, manifest.input.dtype)
        self._latency = manifest.latency * manifest.hop
        self._consumed = self._origin = self._dropped = self._taken = 0
        self._was_full = self._in_flight = False
        self._held = 0
        self._markers = Markers(limits.markers)
        self._delivery = Delivery(id, limits.replay_events, engine.metrics.dropped_events.inc, sink)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.memory = engine.task.open(self.options)
        self._stream: Stream | None = None
        if snapshot is None or not snapshot.finished:
            self._stream = engine.open(self)
            if self._stream is None:
                raise NoSlot(f"all {engine.arena.capacity} slots of {self.model} are taken")
        if snapshot is not None:
            try:
                self._restore(snapshot)
            except Exception:
                self.close()
                raise

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def sink(self) -> Sink | None:
        return self._delivery.sink

    @property
    def seq(self) -> int:
        return self._delivery.seq

    @property
    def chunk_seconds(self) -> float:
        return self._engine.manifest.chunk_seconds

    @property
    def latency_seconds(self) -> float:
        """How far results lag behind the sound, beyond the chunk."""
        return self._latency / self._rate

    @property
    def buffered_seconds(self) -> float:
        """Audio received and not yet taken by a lane."""
        return self._chunker.length / self._rate

    @property
    def full(self) -> bool:
        """The next :meth:`feed` would raise :class:`Overflow`; ``on_drained`` tells when to go on. Not with ``gap``."""
        return self.overflow == "wait" and self._chunker.full

    @property
    def busy(self) -> bool:
        """A whole chunk is waiting or under way."""
        return self.state == "active" and (self._in_flight or self._chunker.ready)

    # -- from the client ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """PCM s16le mono, any length. Never blocks. Raises :class:`BadInput` or :class:`Overflow`, nothing taken.

        A buffer that is not full takes any length, so a stream holds at most its bound and one message.
        """
        if len(data) % 2:
            raise BadInput(f"{len(data)} bytes are no whole number of 16-bit samples")
        with self._lock:
            self._open_for_input()
            if self.full:
                raise Overflow(f"{self.buffered_seconds:.1f} s of audio are waiting already: read on_drained")
            samples = np.frombuffer(data, "<i2")
            self.received += len(samples)
            self.last_audio = monotonic()
            self.version += 1
            self._push(samples if self._resampler is None else self._resampler.push(samples))
            self._was_full = self._was_full or self._chunker.full
            self._wake()

    def marker(self, id: str) -> None:
        """An event of that id, once everything received so far is decoded; it does not push audio out by itself.

        Said again at the same position it is the same marker. Raises :class:`TooManyMarkers`: what waits is memory.
        """
        with self._lock:
            self._open_for_input()
            due = -(-self.received * self._rate // self.sample_rate) + self._latency
            if self._markers.add(id, self.received, due, self._delivery):
                self.version += 1
                self._delivery.emit(self._markers.due(self._consumed))

    def end(self) -> None:
        """No more samples: pad, flush, last final, then the event ``end``. Saying it twice does no harm."""
        with self._lock:
            if self.state != "active" or self._chunker.steps_left >= 0:
                return
            if self._resampler is not None:
                self._push(self._resampler.finish(), last=True)
            self._chunker.end()
            self.version += 1
            if self._chunker.done and not self._in_flight:  # nothing at all to run
                self._finish([])
            self._wake()

    # -- from a lane -------------------------------------------------------------------------------------------------

    def take(self, row: NDArray[Any]) -> int:
        with self._lock:
            if self.state != "active" or self._held:
                return -1
            chunker = self._chunker
            if self._dropped and chunker.ready:
                self._delivery.emit(self._gap())
            before = chunker.length
            steps = chunker.take(row)
            self._taken = before - chunker.length
            self._in_flight = steps >= 0
            return steps

    def deliver(self, events: Sequence[Event]) -> bool:
        with self._lock:
            chunker = self._chunker
            self._in_flight = False
            self._consumed += self._taken
            self.version += 1
            if self.state == "active":
                given = self._dicts(events) if events else []
                if chunker.steps_left == 0:
                    self._finish(given)
                elif events or self._markers:
                    self._delivery.emit(given + self._markers.due(self._consumed))
                if chunker.arrived:
                    self._engine.metrics.lag_seconds.observe(monotonic() - chunker.arrived)
            if self._was_full and 2 * chunker.length <= chunker.bound:
                self._was_full = False
                if self.on_drained is not None:
                    self.on_drained()
            if self._held:  # only a snapshot waits, and it holds the stream
                self._changed.notify_all()
                return False
            return chunker.ready

    def fail(self, message: str) -> None:
        with self._lock:
            self._in_flight = False
            self.stop("model_failed", f"the model failed on this stream's audio: {message}")
            self._changed.notify_all()

    # -- from the registry
    # ------------------------------------------------------------------------------------------------

    def tell(self, *events: dict[str, Any]) -> None:
        """Events about the connection: without a number, never replayed."""
        with self._lock:
            self._delivery.send(list(events))

    def attach(self, sink: Sink, after_seq: int = 0) -> bool:
        """Events go to ``sink`` from now on, those after ``after_seq`` that are still kept first. False when closed."""
        with self._lock:
            if self.state == "closed":
                return False
            self.last_audio = monotonic()
            if self.overflow == "gap" and after_seq > self.seq:
                self._delivery.seq = after_seq  # after a crash the gaps need not fall where they did: new numbers
            self._delivery.attach(sink, after_seq)
            return True

    def detach(self, sink: Sink | None = None) -> bool:
        """Forget the sink; with ``sink`` only if it is still that one. True if so."""
        with self._lock:
            if not self._delivery.detach(sink):
                return False
            self.on_drained = None
            return True

    def stop(self, code: str, message: str) -> None:
        """Give the stream up and tell its client why."""
        with self._lock:
            if self.state != "closed":
                self.tell({"type": "error", "code": code, "message": message})
                self.close()
                self._on_close(self, code)

    def leave(self, code: str, message: str | None) -> bool:
        """Close; ``message`` is for the client. Without one only if there is none, or all is done: else False."""
        with self._lock:
            if message is not None:
                self.tell({"type": "error", "code": code, "message": message})
            elif self.sink is not None and self.state == "active":
                return False
            self.close()
            return True

    def close(self) -> None:
        """The slot is given back, nothing comes any more. A result that is under way is dropped by the engine."""
        with self._lock:
            self.state = "closed"
            self._release()
            self._changed.notify_all()

    def hold(self) -> None:
        """Lanes pass this stream over until :meth:`go_on`, so that a snapshot need not race with them."""
        with self._lock:
            self._held += 1

    def go_on(self) -> None:
        with self._lock:
            self._held -= 1
            self._wake()

    def snapshot(self, timeout: float | None = None, *, whole: bool = True) -> Snapshot:
        """The stream between two chunks: waits until the one in flight is back.

        Not ``whole``: of the audio that waits only the first two chunks are in it, and ``received`` says so. The client
        still has the rest (it was not acknowledged), and a full buffer need not be written again and again.
        Raises ``TimeoutError``, or :class:`SnapshotError` if the stream is closed: then there is nothing to save.
        """
        self.hold()
        try:
            with self._lock:
                if not self._changed.wait_for(lambda: not self._in_flight, timeout):
                    raise TimeoutError(f"the chunk in flight of stream {self.id} has not come back")
                if self.state == "closed":
                    raise SnapshotError(f"stream {self.id} is closed")
                return self._snapshot(whole)
        finally:
            self.go_on()

    # -- inside, under the lock --------------------------------------------------------------------------------------

    def _open_for_input(self) -> None:
        if self.state != "active" or self._chunker.steps_left >= 0:
            raise BadInput("the stream has ended")

    def _push(self, samples: NDArray[Any], *, last: bool = False) -> None:
        self._dropped += self._chunker.push(samples, last=last)

    def _wake(self) -> None:
        if self._stream is not None and self._chunker.ready and not self._held and not self._in_flight:
            self._engine.ready(self._stream)

    def _release(self) -> None:
        if self._stream is not None:
            self._engine.close_stream(self._stream)
            self._stream = None

    def _position(self) -> int:
        return min(self.received, self._consumed * self.sample_rate // self._rate)

    def _gap(self) -> list[dict[str, Any]]:
        """Audio was dropped: what is open becomes final, and the stream starts anew behind the gap."""
        assert self._stream is not None
        events = self._dicts(self._engine.task.finish(self.memory))
        dropped, self._dropped = self._dropped, 0
        self._consumed += dropped
        self._origin = self._consumed
        self._engine.arena.clear(self._stream.slot)
        self.memory = self._engine.task.open(self.options)
        self._engine.metrics.dropped_seconds.inc(dropped / self._rate)
        lost = dropped * self.sample_rate // self._rate
        gap = {"type": "gap", "position": self._position(), "dropped": lost}
        return [*events, gap, *self._markers.due(self._consumed)]

    def _finish(self, events: list[dict[str, Any]]) -> None:
        last = self._dicts(self._engine.task.finish(self.memory))
        self._consumed += self._chunker.length
        self.state = "ended"
        self._release()
        self._delivery.emit([*events, *last, *self._markers.due(), {"type": "end", "position": self.received}])

    def _dicts(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        return [to_dict(event, self._origin / self._rate) for event in events]

    def _snapshot(self, whole: bool) -> Snapshot:
        finished = self.state != "active"
        pending, received, steps_left = self._chunker.rest(), self.received, self._chunker.steps_left
        markers = list(self._markers.waiting)
        excess = len(pending) - 2 * self._chunker.chunk
        if not whole and excess > 0 and self._resampler is None:  # a resampler's memory is that of all it was given
            pending, received, steps_left = pending[:-excess], received - excess, -1
            markers = [marker for marker in markers if marker[1] <= received]
        return Snapshot(
            id=self.id,
            model=self.model,
            digest=self._engine.model.digest,
            sample_rate=self.sample_rate,
            overflow=self.overflow,
            options=self.options,
            received=received,
            consumed=self._consumed,
            origin=self._origin,
            seq=self.seq,
            steps_left=steps_left,
            dropped=self._dropped,
            finished=finished,
            markers=markers,
            events=[dict(event) for event in self._delivery.kept],
            memory=self._engine.task.save(self.memory),
            resampler=b"" if self._resampler is None else self._resampler.save(),
            pending=pending,
            states={} if self._stream is None else self._engine.arena.read(self._stream.slot),
        )

    def _restore(self, saved: Snapshot) -> None:
        if saved.digest != self._engine.model.digest:
            raise SnapshotError(f"it was made by another file of the model {saved.model} ({saved.digest[:12]})")
        try:
            self.memory = self._engine.task.load(saved.memory)
            if self._stream is not None:
                self._engine.arena.write(self._stream.slot, saved.states)
            if self._resampler is not None:
                self._resampler.load(saved.resampler)
        except ValueError as error:
            raise SnapshotError(str(error)) from error
        self.received, self._delivery.seq = saved.received, saved.seq
        self._consumed, self._origin, self._dropped = saved.consumed, saved.origin, saved.dropped
        self._markers.waiting.extend(saved.markers)
        self._delivery.kept.extend(saved.events)
        self._chunker.restore(saved.pending, saved.steps_left)
        self._was_full = self._chunker.full  # else nobody tells a client that finds it full when to go on
        if saved.finished:
            self.state = "ended"
        with self._lock:
            self._wake()


def _resampler(rate_in: int, rate_out: int, lowest: int | None) -> Any:
    if rate_in == rate_out:
        return None
    from streamer.streams.resampler import Resampler  # with its library only where it is needed

    return Resampler(rate_in, rate_out, lowest)
