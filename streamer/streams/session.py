"""One stream: buffer, positions, a place in the engine, the task's memory.

Three kinds of threads meet here: the wire feeds, a lane takes chunks and delivers results, the registry takes
snapshots. One lock (reentrant, never held across a run or while the disk is waited for) orders them, and the sink is
called under it, so that events leave in the order of their numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.engine import Engine, Stream
from streamer.refusals import BadInput, BadRows, NoSlot, Overflow
from streamer.streams.chunker import Policy
from streamer.streams.delivery import Delivery, Markers, Sink, Waiters, to_dicts
from streamer.streams.intake import DEFAULT_LIMITS, Intake, Limits
from streamer.streams.rows import RowReader
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.tasks import Event

__all__ = ["Session", "Sink"]


class Session:
    """Made by the registry only. Attributes are read-only outside.

    ``sink``: where events go, ``None`` while the client is away. ``sample_rate``: of the sound that comes, ``None`` for
    a model of other rows. ``seq``: number of the last event. ``version`` grows with every change. ``state``:
    ``active``, ``ending`` (all is run, the slot is not free yet), ``ended`` or ``closed``. ``lasting``: it is saved;
    else it ends with the process.

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
        limits: Limits = DEFAULT_LIMITS,
        sink: Sink | None = None,
        on_close: Callable[[Session, str], None] = lambda session, reason: None,
        snapshot: Snapshot | None = None,
        lasting: bool = True,
    ) -> None:
        manifest = engine.manifest
        self.id, self.model, self.overflow = id, manifest.name, overflow
        self.sample_rate = sample_rate or manifest.input.sample_rate
        self.options = dict(options or {})
        self.lasting = lasting
        self.reader = RowReader(manifest)
        self.version = 0
        self.state = "active"
        self.resumed = snapshot is not None  # it was here before this client came
        self.worthless = False  # given up for good: no snapshot of it may stay
        self.last_input = monotonic()
        #: Called from a lane when a buffer that was full is half empty again: read on. Must not block.
        self.on_drained: Callable[[], None] | None = None
        self._engine, self._on_close = engine, on_close
        self._intake = Intake(manifest, sample_rate, overflow, limits)
        self.sound = self._intake.sound
        self._held = 0
        self._markers = Markers(limits.markers)
        self._delivery = Delivery(
            id, limits.replay_events, limits.replay_bytes, engine.metrics.dropped_events.inc, sink
        )
        self._waiters = Waiters()
        self._parting: Callable[[], None] | None = None  # what is said once the slot is free
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self.memory = engine.task.open(self.options)
        self._stream: Stream | None = None
        if snapshot is None or not snapshot.finished:
            self._stream = engine.open(self, self.reader.conditions(conditions or {}))
            if self._stream is None:
                raise NoSlot(f"all {engine.arena.capacity} slots of {self.model} are taken")
        if snapshot is not None:
            self._restore(snapshot)

    # -- facts -------------------------------------------------------------------------------------------------------
    @property
    def sink(self) -> Sink | None:
        return self._delivery.sink

    @property
    def seq(self) -> int:
        return self._delivery.seq

    @property
    def received(self) -> int:
        """Rows accepted from the client: the position of the stream."""
        return self._intake.received

    @property
    def buffered_rows(self) -> int:
        return self._intake.waiting

    @property
    def buffered_seconds(self) -> float:
        return self._intake.waiting * self._intake.row_seconds  # 0 without a clock

    @property
    def full(self) -> bool:
        """The next :meth:`feed` would raise :class:`Overflow`; ``on_drained`` tells when to go on. Not with ``gap``."""
        return self._intake.full

    @property
    def busy(self) -> bool:
        """A whole chunk is waiting or under way."""
        return self.state == "ending" or (self.state == "active" and (self._intake.in_flight or self._intake.ready))

    def has_conditions(self, given: Mapping[str, Any]) -> bool:
        """The stream goes by these already. Raises :class:`BadRows` for what the model does not have."""
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

        Raises :class:`BadInput` or :class:`Overflow`, nothing taken. A buffer that is not full takes any length.
        """
        if rows.ndim != 1 or rows.dtype != self.reader.dtype:
            raise BadRows(f"rows of {rows.dtype} {list(rows.shape)}: a list of {self.reader.dtype} is expected")
        with self._lock:
            self._check_open()
            if self.full:
                raise Overflow(f"{self._intake.waiting} rows are waiting already: read on_drained")
            self.last_input = monotonic()
            self.version += 1
            self._intake.push(rows)
            self._wake()

    def marker(self, id: str) -> None:
        """An event of that id, once everything received so far is decoded; it does not push anything out by itself.
        Said again at the same position it is the same marker. Raises :class:`TooManyMarkers`: what waits is memory."""
        with self._lock:
            self._check_open()
            if self._markers.add(id, self.received, self._intake.decoded_at, self._delivery):
                self.version += 1
                self._delivery.emit(self._markers.due(self._intake.consumed))

    def end(self) -> None:
        """No more rows: pad, flush, last final, then the event ``end``. Saying it twice does no harm."""
        with self._lock:
            if self.state != "active" or self._intake.ending:
                return
            self._intake.end()
            self.version += 1
            if self._intake.done and not self._intake.in_flight:  # nothing at all to run
                self._finish([])
            self._wake()

    def when_run(self, call: Callable[[], None]) -> None:
        """``call`` once every whole chunk of what was received is run, after its events; of a stream that was ended,
        once it is over. At once if so, else from a lane, under the stream's lock: it must not block."""
        with self._lock:
            self._waiters.add(self._intake.run_at, call)
            self._call_waiters()

    # -- from a lane -------------------------------------------------------------------------------------------------

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        with self._lock:
            if self.state != "active" or self._held:
                return -1
            if self._intake.dropped and self._intake.ready:
                self._delivery.emit(self._gap())
            return self._intake.take(rows)

    def deliver(self, events: Sequence[Event]) -> bool:
        with self._lock:
            intake = self._intake
            ran = intake.ran()
            self.version += 1
            if self.state == "active":
                self._engine.metrics.rows.inc(ran)
                given = to_dicts(events, self._intake.late) if events else []
                if intake.done:
                    self._finish(given)
                elif events or self._markers:
                    self._delivery.emit(given + self._markers.due(intake.consumed))
                if intake.arrived:
                    self._engine.metrics.lag_seconds.observe(monotonic() - intake.arrived)
            self._call_waiters()
            if intake.drained() and self.on_drained is not None:
                self.on_drained()
            if self._held:  # only a snapshot waits, and it holds the stream
                self._changed.notify_all()
                return False
            return intake.ready

    def fail(self, message: str) -> None:
        with self._lock:
            self._intake.in_flight = False
            if self.state == "closed":
                return
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

    def tell(self, event: dict[str, Any]) -> None:
        """An event about the connection: without a number, never replayed."""
        with self._lock:
            self._delivery.send([event])

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

    def keep_no_events(self) -> None:
        """None is kept any more for a client that comes back."""
        with self._lock:
            self._delivery.keep_none()

    def detach(self, sink: Sink | None = None) -> bool:
        """Forget the sink; with ``sink`` only if it is still that one. True if so."""
        with self._lock:
            if gone := self._delivery.detach(sink):
                self.on_drained = None
            return gone

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
        """The slot is given back, nothing comes any more. A result under way is dropped by the engine."""
        with self._lock:
            self._close(lambda: None)

    def hold(self) -> None:
        """Lanes pass this stream over until :meth:`go_on`: a snapshot need not race with them."""
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

        Not ``whole``: only the first two chunks of what waits, and ``received`` says so; the client still has the rest.
        Raises ``TimeoutError``, or :class:`SnapshotError` if the stream is closed: then there is nothing to save.
        """
        with self.held(), self._lock:
            if not self._changed.wait_for(lambda: not self._intake.in_flight and self.state != "ending", timeout):
                raise TimeoutError(f"the chunk in flight of stream {self.id} has not come back")
            if self.state == "closed":
                raise SnapshotError(f"stream {self.id} is closed")
            return self._snapshot(whole)

    # -- inside, under the lock --------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.state != "active" or self._intake.ending:
            raise BadInput("the stream has ended")

    def _wake(self) -> None:
        if self._stream is not None and self._intake.ready and not self._held and not self._intake.in_flight:
            self._engine.ready(self._stream)

    def _release(self, then: Callable[[], None]) -> None:
        """Give the slot back, and do ``then`` once somebody else can have it."""
        stream, self._stream = self._stream, None
        if stream is not None and not self._engine.close_stream(stream):
            self._parting = then
        else:
            then()

    def _close(self, then: Callable[[], None]) -> None:
        """``then`` says why: before whoever waits for rows is called."""

        def over() -> None:
            then()
            self._waiters.due()

        if self.state != "closed":
            self.state = "closed"
            self._release(over)
            self._changed.notify_all()

    def _call_waiters(self) -> None:
        if self.state in ("ended", "closed"):
            self._waiters.due()
        elif not self._intake.ending:
            self._waiters.due(self._intake.consumed)

    def _gap(self) -> list[dict[str, Any]]:
        """Rows were dropped: what is open becomes final, and the stream starts anew behind the gap."""
        assert self._stream is not None
        events = to_dicts(self._engine.task.finish(self.memory), self._intake.late)
        dropped = self._intake.skip()
        self._engine.arena.clear(self._stream.slot)
        self.memory = self._engine.task.open(self.options)
        self._engine.metrics.dropped_seconds.inc(dropped * self._intake.row_seconds)
        self._engine.metrics.dropped_rows.inc(dropped)
        gap = {"type": "gap", "position": self._intake.position, "dropped": self._intake.to_client(dropped)}
        return [*events, gap, *self._markers.due(self._intake.consumed)]

    def _finish(self, events: list[dict[str, Any]]) -> None:
        last = to_dicts(self._engine.task.finish(self.memory), self._intake.late)
        self.state = "ending"
        self._delivery.emit([*events, *last, *self._markers.due()])
        self._release(self._ended)

    def _ended(self) -> None:
        if self.state == "ending":
            self.state = "ended"
            self._delivery.emit([{"type": "end", "position": self.received}])
            self._call_waiters()
            self._changed.notify_all()

    def _snapshot(self, whole: bool) -> Snapshot:
        intake = self._intake.save(whole)
        return Snapshot(
            id=self.id,
            model=self.model,
            digest=self._engine.model.digest,
            sample_rate=self.sample_rate,
            overflow=self.overflow,
            options=self.options,
            seq=self.seq,
            finished=self.state != "active",
            markers=[marker for marker in self._markers.waiting if marker[1] <= intake["received"]],
            events=[dict(event) for event in self._delivery.kept],
            memory=self._engine.task.save(self.memory),
            states={} if self._stream is None else self._engine.arena.read(self._stream.slot),
            **intake,
        )

    def _restore(self, saved: Snapshot) -> None:
        try:
            if saved.digest != self._engine.model.digest:
                raise ValueError(f"it was made by another file of the model {saved.model} ({saved.digest[:12]})")
            self.memory = self._engine.task.load(saved.memory)
            self._intake.load(saved)
            if self._stream is not None:
                self._engine.arena.write(self._stream.slot, saved.states)
        except ValueError as error:
            self.close()
            raise SnapshotError(str(error)) from error
        self._delivery.restore(saved.seq, saved.events)
        self._markers.waiting.extend(saved.markers)
        self.state = "ended" if saved.finished else "active"
        with self._lock:
            self._wake()
