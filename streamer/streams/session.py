"""One stream: buffer, positions, a place in the engine, the task's memory.

Three kinds of threads meet here: the wire feeds, a lane takes chunks and delivers results, the registry takes
snapshots. One lock (reentrant, never held across a run or while the disk is waited for) orders them, and the sink is
called under it, so that events leave in the order of their numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.engine import Engine, Stream
from streamer.refusals import BadInput, BadRows, NoSlot, Overflow
from streamer.streams.chunker import Chunker, Policy
from streamer.streams.delivery import Delivery, Late, Markers, Sink, to_dict
from streamer.streams.front import is_sound, make_front
from streamer.streams.rows import RowReader
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.tasks import Event

__all__ = ["Limits", "Session", "Sink"]


@dataclass(frozen=True)
class Limits:
    """What one stream may hold. ``buffered_seconds`` of sound, ``buffered_bytes`` of any other rows."""

    buffered_seconds: float = 10.0
    buffered_bytes: int = 2**20
    replay_events: int = 256
    replay_bytes: int = 2**22
    markers: int = 256


class Session:
    """Made by the registry only. Attributes are read-only outside.

    ``sink``: where events go, ``None`` while the client is away. ``sample_rate``: of the sound that comes, ``None`` for
    a model of other rows. ``received``: rows accepted, at the client's rate. ``consumed``: rows run, at the model's.
    ``seq``: number of the last event. ``version`` grows with every change. ``state``: ``active``, ``ending`` (all is
    run, the slot is not free yet), ``ended`` or ``closed``.

    Raises :class:`NoSlot`, :class:`RateError`, or ``ValueError`` for options or conditions that do not fit.
    """

    def __init__(
        self,
        id: str,
        engine: Engine,
        *,
        sample_rate: int | None = None,
        overflow: Policy = "wait",
        options: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
        limits: Limits = Limits(),
        sink: Sink | None = None,
        on_close: Callable[[Session, str], None] = lambda session, reason: None,
        snapshot: Snapshot | None = None,
    ) -> None:
        manifest = engine.manifest
        self.id, self.model, self.overflow = id, manifest.name, overflow
        self.sample_rate = sample_rate or manifest.input.sample_rate
        self.options = dict(options or {})
        self.reader = RowReader(manifest)
        self.received = self.consumed = self.version = 0
        self.state = "active"
        self.resumed = snapshot is not None  # it was here before this client came
        self.worthless = False  # given up for good: no snapshot of it may stay
        self.last_input = monotonic()
        #: Called from a lane when a buffer that was full is half empty again: read on. Must not block.
        self.on_drained: Callable[[], None] | None = None
        self._engine, self._on_close = engine, on_close
        self.sound = is_sound(manifest)
        self._front = make_front(manifest, sample_rate)
        self._row_seconds = manifest.chunk_seconds / manifest.chunk
        size = manifest.row_dtype.itemsize
        bound = round(limits.buffered_seconds / self._row_seconds) if self.sound else limits.buffered_bytes // size
        self._chunker = Chunker(manifest.chunk, manifest.hop, manifest.flush, bound, overflow, manifest.row_dtype)
        self._latency = manifest.latency * manifest.hop
        self._origin = self._dropped = self._taken = 0
        self._was_full = self._in_flight = False
        self._held = 0
        self._markers = Markers(limits.markers)
        lost = engine.metrics.dropped_events.inc
        self._delivery = Delivery(id, limits.replay_events, limits.replay_bytes, lost, sink)
        self._waiters: list[tuple[int, Callable[[], None]]] = []
        self._parting: Callable[[], None] | None = None  # what is said once the slot is free
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.memory = engine.task.open(self.options)
        self._stream: Stream | None = None
        given = self.reader.conditions(conditions or {})
        if snapshot is None or not snapshot.finished:
            self._stream = engine.open(self, given)
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
        """How far results lag behind the input, beyond the chunk; 0 of a model without a clock."""
        return self._latency * self._row_seconds

    @property
    def buffered_rows(self) -> int:
        """Rows received and not yet taken by a lane."""
        return self._chunker.length

    @property
    def buffered_seconds(self) -> float:
        """The same as time; 0 of a model without a clock."""
        return self._chunker.length * self._row_seconds

    @property
    def full(self) -> bool:
        """The next :meth:`feed` would raise :class:`Overflow`; ``on_drained`` tells when to go on. Not with ``gap``."""
        return self.overflow == "wait" and self._chunker.full

    @property
    def busy(self) -> bool:
        """A whole chunk is waiting or under way."""
        return self.state == "ending" or (self.state == "active" and (self._in_flight or self._chunker.ready))

    def has_conditions(self, given: Mapping[str, Any]) -> bool:
        """The stream goes by these already."""
        with self._lock:
            own = {} if self._stream is None else self._engine.arena.read(self._stream.slot)
        return all(np.array_equal(own.get(name, ()), value) for name, value in self.reader.conditions(given).items())

    # -- from the client ---------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Whole rows as bytes, little-endian (sound: PCM s16le mono), any number. As :meth:`feed_rows`."""
        if self.sound and len(data) % 2:
            raise BadInput(f"{len(data)} bytes are no whole number of 16-bit samples")
        self.feed_rows(self.reader.of_bytes(data))

    def feed_rows(self, rows: NDArray[Any]) -> None:
        """``rows`` [n] of the manifest's ``row_dtype``, which may not change afterwards. Never blocks.

        Raises :class:`BadInput` or :class:`Overflow`, nothing taken. A buffer that is not full takes any length, so a
        stream holds at most its bound and one message.
        """
        if rows.ndim != 1 or rows.dtype != self.reader.dtype:
            raise BadRows(f"rows of {rows.dtype} {list(rows.shape)}: a list of {self.reader.dtype} is expected")
        with self._lock:
            self._open_for_input()
            if self.full:
                raise Overflow(f"{self._chunker.length} rows are waiting already: read on_drained")
            self.received += len(rows)
            self.last_input = monotonic()
            self.version += 1
            self._push(self._front.push(rows))
            self._was_full = self._was_full or self._chunker.full
            self._wake()

    def marker(self, id: str) -> None:
        """An event of that id, once everything received so far is decoded; it does not push anything out by itself.

        Said again at the same position it is the same marker. Raises :class:`TooManyMarkers`: what waits is memory.
        """
        with self._lock:
            self._open_for_input()
            due = self._front.to_model(self.received) + self._latency
            if self._markers.add(id, self.received, due, self._delivery):
                self.version += 1
                self._delivery.emit(self._markers.due(self.consumed))

    def end(self) -> None:
        """No more rows: pad, flush, last final, then the event ``end``. Saying it twice does no harm."""
        with self._lock:
            if self.state != "active" or self._chunker.steps_left >= 0:
                return
            self._push(self._front.finish(), last=True)
            self._chunker.end()
            self.version += 1
            if self._chunker.done and not self._in_flight:  # nothing at all to run
                self._finish([])
            self._wake()

    def when_run(self, call: Callable[[], None]) -> None:
        """``call`` once every whole chunk of what was received is run, after its events, or once the stream is over.

        At once if so; else from a lane, under the stream's lock: it must not block.
        """
        with self._lock:
            under_way = self._taken if self._in_flight else 0
            target = self.consumed + under_way + self._dropped + self._chunker.whole
            idle = self.state == "active" and not self._in_flight and not self._chunker.ready
            if idle or self.state in ("ended", "closed"):
                call()
            else:
                self._waiters.append((target, call))

    # -- from a lane -------------------------------------------------------------------------------------------------

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        with self._lock:
            if self.state != "active" or self._held:
                return -1
            chunker = self._chunker
            if self._dropped and chunker.ready:
                self._delivery.emit(self._gap())
            before = chunker.length
            steps = chunker.take(rows)
            self._taken = before - chunker.length
            self._in_flight = steps >= 0
            return steps

    def deliver(self, events: Sequence[Event]) -> bool:
        with self._lock:
            chunker = self._chunker
            self._in_flight = False
            self.consumed += self._taken
            self.version += 1
            if self.state == "active":
                self._engine.metrics.rows.inc(self._taken)
                given = self._dicts(events) if events else []
                if chunker.steps_left == 0:
                    self._finish(given)
                elif events or self._markers:
                    self._delivery.emit(given + self._markers.due(self.consumed))
                if chunker.arrived:
                    self._engine.metrics.lag_seconds.observe(monotonic() - chunker.arrived)
            if self._waiters:
                self._call_waiters()
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
            if self.state != "closed":
                text = f"the model failed on this stream's {'audio' if self.sound else 'rows'}: {message}"
                self._close(lambda: self.tell({"type": "error", "code": "model_failed", "message": text}))
                self._on_close(self, "model_failed")

    def released(self) -> None:
        """The slot is free: whoever is told of the end may open the next stream."""
        with self._lock:
            parting, self._parting = self._parting, None
            if parting is not None:
                parting()

    # -- from the registry -------------------------------------------------------------------------------------------

    def tell(self, *events: dict[str, Any]) -> None:
        """Events about the connection: without a number, never replayed."""
        with self._lock:
            self._delivery.send(list(events))

    def attach(self, sink: Sink, after_seq: int | None = 0) -> bool:
        """Events go to ``sink`` from now on, first those after ``after_seq`` that are still kept; ``None``: none, and
        they are kept no longer. False when closed."""
        with self._lock:
            if self.state == "closed":
                return False
            self.last_input = monotonic()
            self.resumed = True
            if self.overflow == "gap" and after_seq is not None and after_seq > self.seq:
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

    def leave(self, code: str, message: str | None) -> bool:
        """Close; ``message`` is for the client. Without one only if there is none, or all is done: else False."""
        with self._lock:
            if message is not None:
                self.tell({"type": "error", "code": code, "message": message})
            elif self.sink is not None and self.state in ("active", "ending"):
                return False
            self.close()
            return True

    def close(self) -> None:
        """The slot is given back, nothing comes any more. A result that is under way is dropped by the engine."""
        with self._lock:
            self._close(lambda: None)

    def hold(self) -> None:
        """Lanes pass this stream over until :meth:`go_on`, so that a snapshot need not race with them."""
        with self._lock:
            self._held += 1

    def go_on(self) -> None:
        with self._lock:
            self._held -= 1
            self._wake()

    @contextmanager
    def held(self) -> Iterator[None]:
        self.hold()
        try:
            yield
        finally:
            self.go_on()

    def snapshot(self, timeout: float | None = None, *, whole: bool = True) -> Snapshot:
        """The stream between two chunks: waits until the one in flight is back.

        Not ``whole``: of the rows that wait only the first two chunks are in it, and ``received`` says so. The client
        still has the rest (it was not acknowledged), and a full buffer need not be written again and again.
        Raises ``TimeoutError``, or :class:`SnapshotError` if the stream is closed: then there is nothing to save.
        """
        with self.held(), self._lock:
            if not self._changed.wait_for(lambda: not self._in_flight and self.state != "ending", timeout):
                raise TimeoutError(f"the chunk in flight of stream {self.id} has not come back")
            if self.state == "closed":
                raise SnapshotError(f"stream {self.id} is closed")
            return self._snapshot(whole)

    # -- inside, under the lock --------------------------------------------------------------------------------------

    def _open_for_input(self) -> None:
        if self.state != "active" or self._chunker.steps_left >= 0:
            raise BadInput("the stream has ended")

    def _push(self, rows: NDArray[Any], *, last: bool = False) -> None:
        self._dropped += self._chunker.push(rows, last=last)

    def _wake(self) -> None:
        if self._stream is not None and self._chunker.ready and not self._held and not self._in_flight:
            self._engine.ready(self._stream)

    def _release(self, then: Callable[[], None]) -> None:
        """Give the slot back, and do ``then`` once somebody else can have it."""
        stream, self._stream = self._stream, None
        if stream is not None and not self._engine.close_stream(stream):
            self._parting = then
        else:
            then()

    def _close(self, then: Callable[[], None]) -> None:
        self.state = "closed"
        self._release(then)
        self._call_waiters()
        self._changed.notify_all()

    def _call_waiters(self) -> None:
        over = self.state in ("ended", "closed")
        waiting, self._waiters = self._waiters, []
        for target, call in waiting:
            if over or (self.consumed >= target and self._chunker.steps_left < 0):
                call()
            else:
                self._waiters.append((target, call))

    def _position(self) -> int:
        return min(self.received, self._front.to_client(self.consumed))

    def _gap(self) -> list[dict[str, Any]]:
        """Rows were dropped: what is open becomes final, and the stream starts anew behind the gap."""
        assert self._stream is not None
        events = self._dicts(self._engine.task.finish(self.memory))
        dropped, self._dropped = self._dropped, 0
        self.consumed += dropped
        self._origin = self.consumed
        self._engine.arena.clear(self._stream.slot)
        self.memory = self._engine.task.open(self.options)
        self._engine.metrics.dropped_seconds.inc(dropped * self._row_seconds)
        self._engine.metrics.dropped_rows.inc(dropped)
        gap = {"type": "gap", "position": self._position(), "dropped": self._front.to_client(dropped)}
        return [*events, gap, *self._markers.due(self.consumed)]

    def _finish(self, events: list[dict[str, Any]]) -> None:
        last = self._dicts(self._engine.task.finish(self.memory))
        self.consumed += self._chunker.length
        self.state = "ending"
        self._delivery.emit([*events, *last, *self._markers.due()])
        self._release(self._ended)

    def _ended(self) -> None:
        if self.state == "ending":
            self.state = "ended"
            self._delivery.emit([{"type": "end", "position": self.received}])
            self._call_waiters()
            self._changed.notify_all()

    def _dicts(self, events: Sequence[Event]) -> list[dict[str, Any]]:
        origin, steps = self._origin, self._origin // self._chunker.hop
        late = Late(origin * self._row_seconds or float(steps), origin, steps)
        return [to_dict(event, late) for event in events]

    def _snapshot(self, whole: bool) -> Snapshot:
        pending, received, steps_left = self._chunker.rest(), self.received, self._chunker.steps_left
        markers = list(self._markers.waiting)
        excess = len(pending) - 2 * self._chunker.chunk
        if not whole and excess > 0 and self._front.exact:  # a resampler's memory is that of all it was given
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
            consumed=self.consumed,
            origin=self._origin,
            seq=self.seq,
            steps_left=steps_left,
            dropped=self._dropped,
            finished=self.state != "active",
            markers=markers,
            events=[dict(event) for event in self._delivery.kept],
            memory=self._engine.task.save(self.memory),
            resampler=self._front.save(),
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
            self._front.load(saved.resampler)
        except ValueError as error:
            raise SnapshotError(str(error)) from error
        self.received, self._delivery.seq = saved.received, saved.seq
        self.consumed, self._origin, self._dropped = saved.consumed, saved.origin, saved.dropped
        self._markers.waiting.extend(saved.markers)
        for event in saved.events:
            self._delivery.keep(event)
        self._chunker.restore(saved.rows(self._chunker.dtype), saved.steps_left)
        self._was_full = self._chunker.full  # else nobody tells a client that finds it full when to go on
        if saved.finished:
            self.state = "ended"
        with self._lock:
            self._wake()
