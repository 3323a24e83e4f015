"""One stream: buffer, positions, a place in the engine, the task's memory.

The wire feeds, a lane takes and delivers, the registry takes snapshots, the second pass settles finals. One lock
(reentrant, never held across a run of a model or a wait for the disk) orders them; under it the sink is called, so that
events leave in order. The lane that has the stream owns the task's memory; between two chunks the lock's holder does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamer.engine.engine import Engine, EngineStream
from streamer.refusals import BadInput, BadRows, NoSlot, Overflow
from streamer.streams.chunker import Policy
from streamer.streams.delivery import Delivery, Markers, Sink, Waiters, to_dicts
from streamer.streams.doubt import Doubt
from streamer.streams.facts import Facts
from streamer.streams.hearing import BACKLOG, PATIENT, SecondHearing
from streamer.streams.intake import DEFAULT_LIMITS, Intake, Limits
from streamer.streams.realign import Second
from streamer.streams.revision import Reviser
from streamer.streams.rows import RowReader
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.tasks import Event

__all__ = ["Session", "Sink"]


class Session(Facts):
    """Made by the registry only. Attributes are read-only outside.

    ``sink``: where events go, ``None`` while the client is away. ``sample_rate``: of the sound that comes, ``None`` for
    a model of other rows. ``seq``: number of the last event. ``version`` grows with every change. ``state``:
    ``active``, ``ending`` (all rows are run, the slot is not free yet), ``ended`` or ``closed``. ``lasting``: the
    stream is saved; else it ends with the process.

    Raises :class:`NoSlot`, :class:`RateError`, or ``ValueError`` for invalid options or conditions.
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
        reviser: Reviser | None = None,
    ) -> None:
        super().__init__()
        self.id, self.model, self.overflow, manifest = id, engine.manifest.name, overflow, engine.manifest
        self.sample_rate = sample_rate or manifest.input.sample_rate
        self.options = dict(options or {})
        self.lasting, self.reader = lasting, RowReader(manifest)
        self.version = self.joined_at = 0  # joined_at: position at which this client came
        self.state, self.worthless = "active", False  # worthless: given up, no snapshot of it may stay
        self.resumed = snapshot is not None  # the stream existed before this client
        self.begun = self.last_input = monotonic()
        #: Called from a lane when a full buffer is half empty again, so the wire may read on. Must not block.
        self.on_drained: Callable[[], None] | None = None
        self._engine, self._on_close = engine, on_close
        self._intake = Intake(manifest, sample_rate, overflow, limits)
        self.sound = self._intake.sound
        self._markers, self._waiters = Markers(limits.markers), Waiters()
        lost = engine.metrics.dropped_events.inc
        self._delivery = Delivery(id, limits.replay_events, limits.replay_bytes, lost, sink)
        self._parting: Callable[[], None] = lambda: None  # events that are sent once the slot is free
        self.memory = engine.task.open(self.options)
        self._doubt = Doubt(self.sound and snapshot is None, self.sample_rate, engine.metrics.table)
        self._hearing = SecondHearing.of(reviser, manifest, self.memory, self._heard_again) if self.sound else None
        self._stream: EngineStream | None = None
        if snapshot is None or not snapshot.finished:
            self._stream = engine.open(self, self.reader.conditions(conditions or {}))
            if self._stream is None:
                raise NoSlot(f"all {engine.arena.capacity} slots of {self.model} are taken")
        self._begin_span()
        if snapshot is not None:
            self._restore(snapshot)

    def has_conditions(self, given: Mapping[str, Any]) -> bool:
        """Whether the stream has these conditions already. Raises :class:`BadRows` for unknown ones."""
        with self._lock:
            own = {} if self._stream is None else self._engine.arena.read(self._stream.slot)
        return all(np.array_equal(own.get(name, ()), value) for name, value in self.reader.conditions(given).items())

    # -- from the client ---------------------------------------------------------------------------------------------
    # ``sink``: the calling client's. Raises :class:`NotAttached` if it is not the present one; ``None`` is not checked.

    def feed(self, data: bytes, sink: Sink | None = None) -> None:
        """Any number of whole rows as bytes, little-endian (sound: PCM s16le, whose format is tested). See
        feed_rows."""
        self.feed_rows(self.rows(data), sink)

    def rows(self, data: bytes) -> NDArray[Any]:
        """``data`` as :meth:`feed` takes it, [n]. Raises :class:`BadInput`."""
        self._doubt.look(data, self.tell)
        return self.reader.of_bytes(data)

    def feed_rows(self, rows: NDArray[Any], sink: Sink | None = None) -> None:
        """``rows`` [n] of the manifest's ``row_dtype``, which may not change afterwards. Never blocks.

        Raises :class:`BadInput` or :class:`Overflow`, nothing taken. A buffer that is not full takes any length.
        """
        if rows.ndim != 1 or rows.dtype != self.reader.dtype:
            raise BadRows(f"rows of {rows.dtype} {list(rows.shape)}: a list of {self.reader.dtype} is expected")
        with self._lock:
            self._check_open(sink)
            if self.full:
                raise Overflow(f"{self._intake.waiting} rows are waiting already: read on_drained")
            self.last_input = monotonic()
            self.version += 1
            self._intake.push(rows)
            self._wake()

    def marker(self, id: str, sink: Sink | None = None) -> None:
        """Ask for an event with that id once everything received so far is decoded; a marker does not flush the buffer.
        The same id at the same position is the same marker. Raises :class:`TooManyMarkers`, since waiting markers take
        memory."""
        with self._lock:
            self._check_open(sink)
            if self._markers.add(id, self.received, self._intake.decoded_at, self._delivery):
                self.version += 1
                self._delivery.emit(self._markers.due(self._intake.consumed))

    def end(self, sink: Sink | None = None) -> None:
        """No more rows: pad, flush, last final, then the event ``end``. A second call has no effect."""
        with self._lock:
            self._delivery.check(sink)
            if self.state != "active" or self._intake.ending:
                return
            self._intake.end()
            self.version += 1
            self._wake()

    def when_run(self, call: Callable[[], None]) -> None:
        """Call ``call`` once every whole chunk of the received rows is run, after its events; for an ended stream, once
        it is over. The call comes at once if so, else from a lane, under the stream's lock: it must not block."""
        with self._lock:
            self._waiters.add(self._intake.run_at, call)
            self._call_waiters()

    # -- from a lane -------------------------------------------------------------------------------------------------

    def take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        with self._lock:
            intake = self._intake
            if self.state != "active" or self._holders or self._patient:
                return -1
            over = intake.done  # no rows were left to run when the stream was ended
            if not over and not (intake.dropped and intake.ready):
                return self._take(rows)
            intake.reserve()
        last = self._engine.task.finish(self.memory)
        with self._lock:
            intake.in_flight = False
            if self.state != "active":
                return -1
            events = to_dicts(last, intake.late)
            if over:
                self._finish(events)
                return -1
            self._emit(self._gap(events), over=True)
            return self._take(rows)

    def _take(self, rows: Mapping[str, NDArray[Any]]) -> int:
        steps = self._intake.take(rows)
        if self._hearing is not None and steps >= 0:
            self._hearing.keep(next(iter(rows.values()))[: self._intake.taken], self._intake.consumed)
        return steps

    def deliver(self, events: Sequence[Event]) -> bool:
        intake = self._intake
        over = (
            self.state == "active" and intake.done
        )  # once closed it stays closed; if it closes in between, take() sees it
        last = self._engine.task.finish(self.memory) if over else ()
        with self._lock:
            ran = intake.ran()
            self.version += 1
            if self.state == "active":
                given = to_dicts([*events, *last], intake.late) if events or last else []
                if over:
                    self._finish(given)
                elif events or self._markers:
                    self._emit(given + self._markers.due(intake.consumed))
                arrived = intake.arrived
                self._engine.metrics.chunk(ran, monotonic() - arrived if arrived else None)
                if self.sink is not None:
                    self._engine.load.ran(intake.lateness)
            if self._waiters:
                self._call_waiters()
            if intake.drained() and self.on_drained is not None:
                self.on_drained()
            if self._holders:  # only a snapshot waits, and it holds the stream
                self._changed.notify_all()
                return False
            if self.state != "active" or not intake.due:
                return False
            self._rank()
            return True

    def fail(self, message: str) -> None:
        with self._lock:
            self._intake.in_flight = False
            if self.state != "closed":
                self._end_span("model_failed")
                self._delivery.settle_all()  # as they were
                text = f"the model failed on this stream's {'audio' if self.sound else 'rows'}: {message}"
                self._close(lambda: self.tell({"type": "error", "code": "model_failed", "message": text}))
                self._on_close(self, "model_failed")

    def released(self) -> None:
        """The slot is free: send the last event, after which the client may open the next stream."""
        with self._lock:
            parting, self._parting = self._parting, lambda: None
            parting()

    # -- from the registry -------------------------------------------------------------------------------------------

    def tell(self, event: dict[str, Any]) -> None:
        """An event about the connection: without a number, never replayed."""
        with self._lock:
            self._delivery.send([event])

    def acknowledge(self, position: int) -> None:
        """All rows before this position are on the disk: the client need not keep them, and every snapshot has them."""
        with self._lock:
            self._intake.safe = max(self._intake.safe, position)
            self.tell({"type": "ack", "position": position})

    def attach(self, sink: Sink, after_seq: int | None = 0) -> bool:
        """Send events to ``sink`` from now on, first the kept ones after ``after_seq``; ``None``: none, and they are
        kept no longer. False when closed."""
        with self._lock:
            if self.state == "closed":
                return False
            self.last_input = monotonic()
            self.resumed = True
            self.joined_at = self.received
            if self.overflow == "gap" and after_seq is not None and after_seq > self.seq:
                self._delivery.seq = (
                    after_seq  # after a crash gaps may fall at other positions, so events get new numbers
                )
            self._delivery.attach(sink, after_seq)
            self._wake()  # the stream has a listener again
            return True

    def keep_no_events(self) -> None:
        """Keep no events any more for a client that comes back."""
        with self._lock:
            self._delivery.keep_none()

    def detach(self, sink: Sink | None = None) -> bool:
        """Forget the sink; with ``sink`` only if it is still that one. True if so."""
        with self._lock:
            if gone := self._delivery.detach(sink):
                self.on_drained = None
                self._wake()  # chunks without a listener run last
            return gone

    def leave(self, code: str, message: str | None, version: int | None = None) -> bool:
        """Close the session; ``message`` is sent to the client. Without a message it closes only if there is no client
        or the stream is over; with ``version`` only if nothing changed since that version. False if it does not
        close."""
        with self._lock:
            if version not in (None, self.version):
                return False
            if message is not None:
                self.tell({"type": "error", "code": code, "message": message})
            elif self.sink is not None and self.state in ("active", "ending"):
                return False
            self.close()
            return True

    def close(self, freed: Callable[[], None] = lambda: None) -> None:
        """Close the session without an event. ``freed`` is called once the slot is free, here or by a lane. Never
        waits."""
        with self._lock:
            if self.state == "closed":
                freed()
            else:
                self._close(freed)

    def snapshot(self, timeout: float | None = None, *, whole: bool = True) -> Snapshot:
        """The stream between two chunks: waits until the one in flight is back.

        Not ``whole``: only the first two chunks of the waiting rows, and all acknowledged rows; ``received`` counts
        these, and the client still has the rest.
        Raises ``TimeoutError``, or :class:`SnapshotError` if the stream is closed: then there is nothing to save.
        """
        with self.held(), self._lock:
            if not self._changed.wait_for(self._settled, timeout):
                raise TimeoutError(f"the chunk in flight of stream {self.id} has not come back")
            if self.state == "closed":
                raise SnapshotError(f"stream {self.id} is closed")
            return self._snapshot(whole)

    # -- inside, under the lock --------------------------------------------------------------------------------------

    def _settled(self) -> bool:
        return self.state == "closed" or (self.state != "ending" and not self._intake.in_flight)

    def _check_open(self, sink: Sink | None) -> None:
        self._delivery.check(sink)
        if self.state != "active" or self._intake.ending:
            raise BadInput("the stream has ended")

    def _wake(self) -> None:
        if self._stream is not None and self._intake.due and not self._holders and not self._intake.in_flight:
            self._rank()
            self._engine.ready(self._stream)

    def _rank(self) -> None:
        """Set the stream's deadline and listener for the engine's queue."""
        if self._stream is not None:
            self._stream.deadline, self._stream.heard = self._intake.deadline, self.sink is not None

    def _release(self, then: Callable[[], None]) -> None:
        """Give the slot back, and call ``then`` once it is free."""
        stream, self._stream = self._stream, None
        if stream is not None and not self._engine.close_stream(stream):
            self._parting = then
        else:
            then()

    def _close(self, then: Callable[[], None]) -> None:
        """``then`` sends the reason; it is called before the callers of :meth:`when_run`."""

        def over() -> None:
            then()
            self._waiters.due()

        self.state = "closed"
        self._end_span()
        self._delivery.drop()
        if self._hearing is not None:
            self._hearing.drop()
        self._release(over)
        self._changed.notify_all()

    def _call_waiters(self) -> None:
        over = self.state in ("ended", "closed")
        if over or not self._intake.ending:
            self._waiters.due(None if over else self._intake.consumed, self._delivery.call)

    @property
    def _patient(self) -> bool:
        """Whether the stream may pause for the second pass: a file may, live sound may not."""
        return self.overflow == "wait" and self._delivery.held >= PATIENT and self.buffered_seconds > BACKLOG

    def _emit(self, events: list[dict[str, Any]], *, over: bool = False) -> None:
        """Emit the events. ``over``: the task's memory starts again after them."""
        held: list[dict[str, Any]] = []
        if self._hearing is not None:
            finals = [event for event in events if event["type"] == "final" and event["text"]]
            held = self._hearing.ask(finals, self._delivery.held, over) if finals else []
        self._delivery.emit(events, held)

    def _heard_again(self, final: dict[str, Any], second: Second) -> None:
        """A final is settled. Called from a thread of the second pass."""
        with self._lock:
            if self.state != "closed":
                second.apply(final)
                self.version += 1
                self._delivery.settle(final)
                self._wake()

    def _gap(self, last: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows were dropped: the open utterance becomes final (``last``), and the stream starts again after the gap."""
        assert self._stream is not None
        dropped = self._intake.skip()
        self._engine.arena.clear(self._stream.slot)
        self.memory = self._engine.task.open(self.options)
        self._engine.metrics.dropped_seconds.inc(dropped * self._intake.row_seconds)
        self._engine.metrics.dropped_rows.inc(dropped)
        gap = {"type": "gap", "position": self._intake.position, "dropped": self._intake.to_client(dropped)}
        return [*last, gap, *self._markers.due(self._intake.consumed)]

    def _finish(self, events: list[dict[str, Any]]) -> None:
        self.state = "ending"
        self._emit([*events, *self._markers.due()], over=True)
        self._release(self._ended)

    def _ended(self) -> None:
        if self.state == "ending":
            self.state = "ended"
            self._end_span()
            self._delivery.emit([{"type": "end", "position": self.received}])
            self._call_waiters()
            self._changed.notify_all()

    def _snapshot(self, whole: bool) -> Snapshot:
        intake = self._intake.save(whole)
        return Snapshot(
            id=self.id, model=self.model, digest=self._engine.model.digest, sample_rate=self.sample_rate,
            overflow=self.overflow, options=self.options, seq=self.seq, version=self.version,
            finished=self.state != "active", events=self._delivery.saved(),
            markers=[marker for marker in self._markers.waiting if marker[1] <= intake["received"]],
            heard=None if self._hearing is None else self._hearing.save(whole),
            memory=self._engine.task.save(self.memory),
            states={} if self._stream is None else self._engine.arena.read(self._stream.slot),
            **intake,
        )  # fmt: skip

    def _restore(self, saved: Snapshot) -> None:
        try:
            if saved.digest != self._engine.model.digest:
                raise ValueError(f"it was made by another file of the model {saved.model} ({saved.digest[:12]})")
            self.memory = self._engine.task.load(saved.memory)
            self._intake.load(saved)
            if self._hearing is not None and saved.heard is not None:
                self._hearing.load(saved.heard, saved.consumed)
            if self._stream is not None:
                self._engine.arena.write(self._stream.slot, saved.states)
            self._delivery.restore(saved.seq, saved.events)
            self._markers.waiting.extend(saved.markers)
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError):
                raise SnapshotError(str(error)) from error
            raise
        self.state = "ended" if saved.finished else "active"
        self._wake()
