"""All models and all streams: who may come in, who waits for a client, and how it ends.

The registry owns threads and knows nothing of asyncio, so it works the same inside the daemon and inside a command.
What it writes, and when, is the keeper's (:mod:`streamer.streams.keeper`). Methods that may wait for the disk say so.
"""

from __future__ import annotations

import logging
import platform
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from streamer import __version__
from streamer.engine.catalogue import default_models, resolve
from streamer.engine.engine import Engine
from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.names import NameRefusedError, check_name
from streamer.refusals import NoSlot, RateError, Refused
from streamer.store import Store, StoreError
from streamer.streams.chunker import Policy
from streamer.streams.keeper import Keeper
from streamer.streams.loading import OtherTaskError, describe, describe_stream, load_engine
from streamer.streams.numbers import formatter
from streamer.streams.session import Limits, Session, Sink
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.streams.table import Table

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Registry"]

log = logging.getLogger(__name__)

#: Two that open one key at the same moment find each other at the second try.
TRIES = 8


class Registry:
    """``store`` ``None``: nothing survives the process, and acknowledgements say only what was received.

    ``clock``: monotonic seconds, for grace and idle times.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, store: Store | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings, self.metrics, self.store = settings, metrics, store
        self._clock = clock
        self._limits = Limits(
            settings.buffer_seconds,
            settings.buffer_bytes,
            settings.max_replay_events,
            settings.max_replay_bytes,
            settings.max_waiting_markers,
        )
        self._engines: dict[str, Engine] = {}
        #: Files among the models that are no streams of rows, by task, once :meth:`load` has been called.
        self.others: dict[str, list[Path]] = {"forecast": [], "generate": []}
        self._table = Table()
        self.keeper = Keeper(self._table, settings, metrics, store, clock)
        self._draining = False
        self._stop = Event()

    # -- life --------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Models, warm-up, sessions of the last run. Raises :class:`ModelError`: without its models a registry is no
        use."""
        names = list(self.settings.models) or default_models()
        if not names:
            raise ModelError("no model is installed: name .onnx files in the setting models")
        for name in names:
            try:
                engine = load_engine(resolve(name), self.settings, self.metrics, self._table.all)
            except OtherTaskError as error:
                self.others[error.task].append(error.path)
                continue
            if self._engines.setdefault(engine.manifest.name, engine) is not engine:
                again = f"two models are named {engine.manifest.name!r}: serve one, or export it under another name"
                raise ModelError(again)
        if self.settings.numbers == "written":
            formatter()  # a model that is missing is told of now
        for name, value in self.settings.limits().items():
            self.metrics.limit.labels(name).set(value)
        python, runtime = platform.python_version(), metadata.version("onnxruntime")
        self.metrics.build.info({"version": __version__, "python": python, "onnxruntime": runtime})
        for engine in self._engines.values():
            engine.start()
        self._restore_all()
        self.keeper.start()

    def drain(self, timeout: float) -> int:
        """Refuse new streams, finish what was received (whole chunks), save, tell the clients; how many were saved."""
        self._draining = True
        deadline = self._clock() + timeout
        while self._clock() < deadline and any(s.busy for s in self._table.all()) and not self._stop.wait(0.005):
            pass
        sessions = self._table.all()
        if left := sum(session.busy for session in sessions):
            log.warning("draining took too long, what was not run is saved", extra={"streams": left})
        self.checkpoint(whole=True)
        saved = {session: self.keeper.acknowledged(session) for session in sessions}
        for session, position in saved.items():
            if session.state in ("active", "ending"):
                safe = position or 0 if self.store is not None else 0
                session.tell({"type": "restart", "position": safe, "retry_after": 1.0})
        return sum(position is not None for position in saved.values()) if self.store is not None else 0

    def close(self) -> bool:
        """Threads end; streams are dropped as they are (:meth:`drain` saves them). False if a lane is stuck."""
        self._stop.set()
        self.keeper.stop()
        self.keeper.settle()
        ended = [engine.close(self.settings.stuck_seconds) for engine in self._engines.values()]
        for session in self._table.all():
            session.close()
        self._table.clear()
        if self.store is not None:
            self.store.close()
        return all(ended)

    # -- streams -----------------------------------------------------------------------------------------------------

    def open(
        self,
        *,
        model: str | None,
        sink: Sink,
        sample_rate: int | None = None,
        stream: str | None = None,
        key: str | None = None,
        after_seq: int | None = None,
        overflow: str = "wait",
        options: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> Session:
        """A new stream, or the one that has this ``key`` already. May be :class:`Refused`; with a key, may wait for the
        disk.

        ``model`` ``None``: the first one. ``sample_rate`` in Hz of sound, ``None``: the model's own, or rows of another
        kind. ``stream``: the caller's own id, which nobody else may have. ``key``: a name that outlives connections and
        restarts: whoever opens it goes on where it was (``after_seq`` as in :meth:`attach`), and takes it over.
        ``conditions``: what the model takes once for a stream, by name.
        """
        if self._draining:
            raise self._refuse("draining", "the daemon is going down", 1.0)
        if overflow not in ("wait", "gap"):
            raise self._refuse("options", f"overflow is {overflow!r}: wait or gap")
        if key is not None:
            try:
                check_name(key)
            except NameRefusedError as error:
                raise self._refuse("key", str(error)) from error
            for _ in range(TRIES):
                found = self._find(key, model, sample_rate, options, conditions)
                if found is not None and self._attach(found, sink, after_seq):
                    return found
                session = self._begin(key, model, sample_rate, sink, overflow, options, conditions)
                if session is not None:
                    return session
            raise self._refuse("duplicate", f"stream {key!r} is being opened by others: try again", 1.0)
        id = stream or uuid.uuid4().hex
        session = (
            None if self._table.get(id) else self._begin(id, model, sample_rate, sink, overflow, options, conditions)
        )
        if session is None:
            raise self._refuse("duplicate", f"stream {id} exists already: resume it, or choose another id")
        return session

    def attach(self, stream: str, sink: Sink, *, after_seq: int | None = 0) -> Session:
        """A client comes back: within the grace time, or later if the store has its stream. Raises :class:`Refused`.
        May wait for the disk.

        Go on feeding from ``session.received``. The sink gets at once what came after ``after_seq`` (``None``:
        nothing).
        """
        if self._draining:
            raise self._refuse("draining", "the daemon is going down", 1.0)
        session = self._table.get(stream)
        source = "memory"
        if session is None or not self._attach(session, sink, after_seq):  # not there, or evicted at this moment
            source = "store"
            data = self._saved(stream)
            if data is None:
                raise self._refuse("unknown_stream", f"no stream {stream[:64]!r} is known here: start a new one")
            session = self._restore(stream, data)
            self._attach(session, sink, after_seq)
        self.metrics.resumes.labels(source).inc()
        return session

    def detach(self, session: Session, sink: Sink | None = None) -> None:
        """The client went away. With ``sink`` nothing happens if the stream was meanwhile resumed with another one."""
        if session.detach(sink):
            self._table.went_away(session, self._clock())

    def discard(self, session: Session) -> None:
        """The stream is done with, its snapshot too. Waits for the disk."""
        session.close()
        self.keeper.forget(session, delete=True)
        self.keeper.settle()

    def delete(self, stream: str) -> bool:
        """The same by name, wherever the stream is; its client is told. False if there is none. Waits for the disk.
        May be :class:`Refused`."""
        session = self._table.get(stream)
        if session is not None:
            session.tell({"type": "error", "code": "deleted", "message": "this stream was deleted"})
            self.discard(session)
            return True
        if self._saved(stream) is None:
            return False
        self.keeper.disk.put_away(stream, delete=True)
        return True

    # -- facts -------------------------------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """What is served, JSON-ready; the first is the default."""
        return [describe(engine) for engine in self._engines.values()]

    def engine(self, model: str | None) -> Engine:
        """Of a model that is served; ``None``: the first one. Raises :class:`Refused`."""
        if model is None and self._engines:
            return next(iter(self._engines.values()))
        if model not in self._engines:
            known = ", ".join(self._engines)
            raise self._refuse("unknown_model", f"no model {str(model)[:100]!r} is served here: {known}")
        return self._engines[model]

    def describe(self, session: Session) -> dict[str, Any]:
        """What a client is told of its stream: where to go on, how long results take, and what it takes and gives."""
        return describe_stream(session, self._engines[session.model].manifest)

    def look(self, stream: str) -> dict[str, Any] | None:
        """Where a stream stands, whether it is awake or asleep, without waking it. Waits for the disk."""
        session = self._table.get(stream)
        if session is not None:
            return {
                "stream": session.id,
                "model": session.model,
                "position": session.received,
                "acknowledged": self.keeper.acknowledged(session) or 0,
                "seq": session.seq,
                "state": "attached" if session.sink is not None else "waiting",
                "age_seconds": round(self._clock() - session.last_input, 3),
            }
        data = self._saved(stream)
        if data is None:
            return None
        try:
            saved = Snapshot.from_bytes(data)
        except SnapshotError as error:
            raise self._refuse("snapshot", f"the saved stream can't be read: {error}") from error
        return {
            "stream": stream,
            "model": saved.model,
            "position": saved.received,
            "acknowledged": saved.received,
            "seq": saved.seq,
            "state": "asleep",
            "age_seconds": round(self.keeper.disk.age(stream) or 0.0, 3),
        }

    def stuck(self) -> str | None:
        """Which model had work for ``stuck_seconds`` without a batch coming back; ``None`` if all goes well."""
        seconds = self.settings.stuck_seconds
        for name, engine in self._engines.items():
            if engine.stuck(seconds):
                return f"model {name} has work and no batch came back for {seconds:g} s"
        return None

    def checkpoint(self, *, whole: bool = False) -> None:
        self.keeper.checkpoint(whole=whole)

    def sweep(self) -> None:
        self.keeper.sweep()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _refuse(self, reason: str, message: str, retry_after: float | None = None) -> Refused:
        self.metrics.refusals.labels(reason).inc()
        return Refused(reason, message, retry_after)

    def _begin(
        self,
        id: str,
        model: str | None,
        sample_rate: int | None,
        sink: Sink,
        overflow: str,
        options: Mapping[str, Any] | None,
        conditions: Mapping[str, Any] | None,
    ) -> Session | None:
        """A stream from its first row on. ``None`` if somebody else has taken its id meanwhile."""
        engine = self.engine(model)
        # a chunk that has been ready for so long says that the machine is full, even if slots are free
        if (waited := engine.waited()) > max(self.settings.overload_seconds, 2 * engine.manifest.chunk_seconds):
            raise self._refuse("overload", f"the machine is {waited:.1f} s behind already", waited + 1)
        given = self._with_defaults(engine, options)
        session = self._make(
            id,
            engine,
            sample_rate=sample_rate,
            overflow=cast(Policy, overflow),
            options=given,
            conditions=conditions,
            sink=sink,
        )
        if not self._table.enter(session, self._clock()):
            session.close()
            return None
        self.metrics.opened.labels(session.model).inc()
        return session

    def _with_defaults(self, engine: Engine, options: Mapping[str, Any] | None) -> Mapping[str, Any]:
        if engine.manifest.task == "transcribe" and self.settings.numbers != "spoken":
            return {"numbers": self.settings.numbers, **(options or {})}
        return options or {}

    def _make(self, id: str, engine: Engine, **wishes: Any) -> Session:
        try:
            return Session(id, engine, limits=self._limits, on_close=self._closed, **wishes)
        except NoSlot as error:
            raise self._refuse("capacity", str(error), 5.0) from error
        except SnapshotError:
            raise
        except RateError as error:
            raise self._refuse("rate", str(error)) from error
        except ValueError as error:
            raise self._refuse("options", str(error)) from error

    def _closed(self, session: Session, reason: str) -> None:
        """A session gave up by itself: its state is worth nothing. From a lane, under the session's lock."""
        self.metrics.evictions.labels(reason).inc()
        self.keeper.forget(session, delete=True)

    def _attach(self, session: Session, sink: Sink, after_seq: int | None) -> bool:
        if not session.attach(sink, after_seq):
            return False
        self._table.came_back(session)
        if safe := self.keeper.acknowledged(session):  # nobody may have listened when it was told
            session.tell({"type": "ack", "position": safe})
        return True

    # -- streams that are there already ------------------------------------------------------------------------------

    def _find(
        self,
        key: str,
        model: str | None,
        sample_rate: int | None,
        options: Mapping[str, Any] | None,
        conditions: Mapping[str, Any] | None,
    ) -> Session | None:
        """The stream of that name, awake. ``None`` if there is none, or it has ended. Raises :class:`Refused` if it is
        another one than what is asked for."""
        session = self._table.get(key)
        if session is None:
            data = self._saved(key)
            session = None if data is None else self._restore(key, data)
            if session is not None:
                self.metrics.resumes.labels("store").inc()
        else:
            self.metrics.resumes.labels("memory").inc()
        if session is None:
            return None
        if session.state in ("ended", "closed"):
            self.discard(session)
            return None
        engine = self._engines[session.model]
        differs = [
            f"the model {session.model}" if model not in (None, session.model) else "",
            f"{session.sample_rate} Hz" if sample_rate not in (None, session.sample_rate) else "",
            "other options" if options and dict(self._with_defaults(engine, options)) != session.options else "",
            "other conditions" if conditions and not session.has_conditions(conditions) else "",
        ]
        if any(differs):
            said = " and ".join(filter(None, differs))
            raise self._refuse("key", f"stream {key!r} goes on with {said}: delete it, or choose another key")
        return session

    def _saved(self, id: str) -> bytes | None:
        """Its snapshot, after what was noted of it was done. Raises :class:`Refused`."""
        self.keeper.settle(id)
        try:
            return self.keeper.disk.get(id)
        except StoreError as error:
            raise self._refuse("store", f"the session store failed: {error}", 5.0) from error

    def _restore_all(self) -> None:
        self.sweep()
        count = 0
        for id, data in self.keeper.disk.live():
            try:
                self._restore(id, data)
                count += 1
            except Refused as error:
                self.keeper.disk.put_away(id, delete=False)  # from here on its time runs
                log.warning("a saved stream is not brought back", extra={"stream": id, "reason": error.message})
        if count:
            log.info("streams brought back", extra={"streams": count})

    def _restore(self, id: str, data: bytes) -> Session:
        try:
            snapshot = Snapshot.from_bytes(data)
            engine = self.engine(snapshot.model)
            session = self._make(
                id,
                engine,
                sample_rate=snapshot.sample_rate,
                overflow=cast(Policy, snapshot.overflow),
                options=snapshot.options,
                snapshot=snapshot,
            )
        except SnapshotError as error:
            self.metrics.store_errors.labels("snapshot").inc()
            raise self._refuse("snapshot", f"the saved stream can't go on: {error}") from error
        if self._table.enter(session, self._clock()):
            return session
        session.close()
        other = self._table.get(id)  # somebody else woke it at the same moment
        if other is None:
            raise self._refuse("duplicate", f"stream {id} is being resumed by others: try again", 1.0)
        return other
