"""The registry of all models and all streams: opens, attaches, detaches, ends and drains streams.

The registry owns threads and does not use asyncio, so it works the same inside the daemon and inside a command. The
keeper (:mod:`streamer.streams.keeper`) decides what is written, and when. Methods that may wait for the disk say so.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from streamer.engine.catalogue import default_models, resolve
from streamer.engine.engine import Engine
from streamer.engine.model import ModelError
from streamer.engine.scheduler import Gather
from streamer.metrics import Metrics
from streamer.names import name_of
from streamer.store import Store
from streamer.streams.admission import Admission, Quota, StreamRequest
from streamer.streams.keeper import Keeper
from streamer.streams.kept_models import KeptModels
from streamer.streams.loading import (
    OtherTaskError,
    describe,
    describe_stream,
    load_engine,
    load_writers,
    make_reviser,
    show_facts,
    watch_engine,
)
from streamer.streams.look import look_asleep, look_awake
from streamer.streams.moving import Mover
from streamer.streams.reload import Reloader
from streamer.streams.revision import Reviser, SecondRecogniser
from streamer.streams.session import Session, Sink
from streamer.streams.table import StreamTable

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Registry"]

log = logging.getLogger(__name__)

#: Tries to open a key: of two connections that open it at once, the second finds the stream of the first.
TRIES = 8


class Registry:
    """``store`` ``None``: nothing survives the process, and acknowledgements only say what was received.

    ``clock``: monotonic seconds, for grace and idle times. ``gather``: wakes lanes for all chunks that come together,
    see :data:`streamer.engine.scheduler.Gather`; ``None``: for each.
    ``behind``: seconds by which the event loop is late. ``quota``: of owners.
    ``recogniser`` of the second pass, instead of the one that the setting ``revise`` names.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        store: Store | None = None,
        clock: Callable[[], float] = monotonic,
        gather: Gather | None = None,
        recogniser: SecondRecogniser | None = None,
        quota: Quota = lambda owner: None,
        behind: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.settings, self.metrics, self.store = settings, metrics, store
        self._clock, self._gather = clock, gather
        self._engines: dict[str, Engine] = {}
        #: Model files that do not serve streams of rows, by task, once :meth:`load` has been called.
        self.others: dict[str, list[Path]] = {"forecast": [], "generate": []}
        self._table = StreamTable()
        self.keeper = Keeper(self._table, settings, metrics, store, clock)
        self._admission = Admission(self._engines, self._table, self.keeper, settings, metrics, clock, quota, behind)
        self.headroom = self._admission.headroom
        self._reloader = self._admission.versions = Reloader(
            self._engines,
            settings,
            metrics,
            partial(load_engine, settings=settings, metrics=metrics),
            self._start,
            self._table.all,
            clock,
            None if store is None else KeptModels.of(settings),
        )
        self.keeper.also = self._reloader.sweep
        #: Export, import and move of streams.
        self.mover = Mover(self._table, self.keeper, self._admission, settings.stuck_seconds)
        self._recogniser = recogniser
        self._reviser: Reviser | None = None
        self._draining, self._stop = False, Event()

    # -- life --------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Load and warm the models, and restore the sessions of the last run. Raises :class:`ModelError` if any model
        can't be served."""
        names = list(self.settings.models) or default_models()
        if not names:
            raise ModelError("no model is installed: name .onnx files in the setting models")
        for name in names:
            try:
                engine = load_engine(resolve(name), self.settings, self.metrics)
            except OtherTaskError as error:
                self.others[error.task].append(error.path)
                continue
            if self._engines.setdefault(engine.manifest.name, engine) is not engine:
                again = f"two models are named {engine.manifest.name!r}: serve one, or export it under another name"
                raise ModelError(again)
        load_writers(self.settings, (engine.manifest.task for engine in self._engines.values()))
        self._reviser = self._admission.reviser = make_reviser(self.settings, self.metrics, self._recogniser)
        show_facts(self.settings, self.metrics)
        for engine in self._engines.values():
            self._start(engine)
        self.keeper.look()
        self._reloader.keep()
        self.sweep()
        self._admission.wake_all()
        self.keeper.start()

    def _start(self, engine: Engine) -> None:
        self.headroom.watch(engine)
        if self._gather is not None:
            engine.gather(self._gather)
        served = {engine, *self._engines.values()}
        for each in served:
            each.let_first([other for other in served if other is not each])
        watch_engine(self._engines.get(engine.manifest.name, engine), self._table.all)
        engine.start()

    def reload(self) -> dict[str, dict[str, Any]]:
        """New versions of model files: see :class:`streamer.streams.reload.Reloader`."""
        return self._reloader.reload()

    def drain(self, timeout: float) -> int:
        """Refuse new streams, run all received whole chunks, save, send ``restart``; returns the number of saved
        streams."""
        self._draining = True
        self.keeper.drain()
        deadline = self._clock() + timeout
        while self._clock() < deadline and any(s.busy for s in self._table.all()) and not self._stop.wait(0.005):
            pass
        sessions = self._table.all()
        if left := sum(session.busy for session in sessions):
            log.warning("draining took too long, what was not run is saved", extra={"streams": left})
        if self._reviser is not None:  # finals that are still in the second pass keep the first model's words
            self._reviser.close(self.settings.stuck_seconds)
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
        ended = [engine.close(self.settings.stuck_seconds) for engine in self._engines.copy().values()]
        ended += self._reloader.close()
        if self._reviser is not None:
            ended.append(self._reviser.close(self.settings.stuck_seconds))
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
        lasting: bool = True,
    ) -> Session:
        """A new stream, or the one that has this ``key`` already. Raises :class:`Refused`; with a key, it may wait for
        the disk. The other arguments are those of :class:`streamer.streams.admission.StreamRequest`.

        ``stream``: the caller's own id, which no other stream may have. ``key``: a name that outlives connections and
        restarts: a client that opens it continues the stream (``after_seq`` as in :meth:`attach`), and takes it over.
        A key whose stream has ended starts a new one; with ``after_seq`` the client first gets the remaining events of
        an ended stream that is still being run.
        """
        self._open_for_streams()
        request = StreamRequest(model, sample_rate, overflow, options or {}, conditions or {}, lasting)
        if key is None:
            id = stream or uuid.uuid4().hex
            session = self._admission.begin(id, request, sink) if self._table.get(id) is None else None
            if session is None:
                raise self._admission.refuse(
                    "duplicate", f"stream {name_of(id)} exists already: resume it, or choose another id"
                )
            return session
        self._admission.check(key)
        source = "memory"
        for _ in range(TRIES):
            session = self._table.get(key)
            if session is not None and after_seq is None and session.ending:
                self._admission.wait_for_end(session)
            if session is not None and session.state in ("ended", "closed"):
                self.discard(session)
            found = self._rejoin(key, request, sink, after_seq, source)
            if found is not None:
                return found
            with self._table.claim(key) as claim:
                data = self._admission.saved(key)
                if data is not None:
                    self._admission.wake(key, data, claim)
                    source = "store"
                    continue
                session = self._admission.with_room(partial(self._admission.begin, key, request, sink, claim), model)
                if session is not None:
                    return session
        raise self._admission.refuse("duplicate", f"stream {name_of(key)!r} is being opened by others: try again", 1.0)

    def rejoin(
        self,
        *,
        model: str | None,
        sink: Sink,
        key: str,
        after_seq: int | None = None,
        sample_rate: int | None = None,
        options: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> Session | None:
        """:meth:`open` with a key whose stream is awake, without waiting for anything; ``None``: it is not. Raises
        :class:`Refused`."""
        self._open_for_streams()
        request = StreamRequest(model, sample_rate, "wait", options or {}, conditions or {})
        return self._rejoin(key, request, sink, after_seq, "memory")

    def attach(self, stream: str, sink: Sink, *, after_seq: int | None = 0) -> Session:
        """A client comes back: within the grace time, or later if the store has its stream. Raises :class:`Refused`.
        May wait for the disk.

        Continue feeding from ``session.received``. The sink gets at once the kept events after ``after_seq``;
        ``None``: none, and they are kept no longer.
        """
        if (awake := self.reattach(stream, sink, after_seq=after_seq)) is not None:
            return awake
        session: Session | None = None  # it sleeps, or was put to sleep at this moment
        for _ in range(TRIES):
            if session is not None and self._admission.attach(session, sink, after_seq):
                self.metrics.resumes.labels("store").inc()
                return session
            with self._table.claim(stream) as claim:
                data = self._admission.saved(stream)
                if data is None:
                    text = f"no stream {name_of(stream)[:64]!r} is known here: start a new one"
                    raise self._admission.refuse("unknown_stream", text)
                session = self._admission.wake(stream, data, claim)
        raise self._admission.refuse(
            "duplicate", f"stream {name_of(stream)[:64]!r} leaves at this moment: try again", 1.0
        )

    def reattach(self, stream: str, sink: Sink, *, after_seq: int | None = 0) -> Session | None:
        """:meth:`attach` to a stream that is awake, without waiting for anything; ``None``: it is not. Raises
        :class:`Refused`."""
        self._open_for_streams()
        session = self._table.get(stream)
        if session is None or not self._admission.attach(session, sink, after_seq):
            return None
        self.metrics.resumes.labels("memory").inc()
        return session

    def detach(self, session: Session, sink: Sink | None = None) -> None:
        """The client went away. With ``sink`` nothing happens if the stream was meanwhile resumed with another one."""
        if session.detach(sink):
            self._table.went_away(session, self._clock())

    def discard(self, session: Session) -> None:
        """Close the stream and delete its snapshot. Waits for the disk."""
        session.close()
        self.keeper.forget(session, delete=True)
        self.keeper.settle()

    def release(self, session: Session, freed: Callable[[], None] = lambda: None) -> None:
        """Close the stream; the keeper deletes its snapshot soon. Never waits. ``freed`` as for
        :meth:`Session.close`."""
        session.close(freed)
        self.keeper.forget(session, delete=True)

    def delete(self, stream: str) -> bool:
        """Delete a stream by name, awake or asleep; its client gets an error. False if there is none. Waits for the
        disk. Raises :class:`Refused`."""
        for _ in range(TRIES):
            session = self._table.get(stream)
            if session is not None:
                session.tell({"type": "error", "code": "deleted", "message": "this stream was deleted"})
                session.close()
                if not self.keeper.forget(session, delete=True):
                    continue  # it was put to sleep at this moment
                if not self.keeper.settle(stream):
                    text = "the stream is over, but is still on the disk, which is tried again: delete it again"
                    raise self._admission.refuse("store", text, 5.0)
                return True
            if self._admission.saved(stream) is None:
                return False
            with self._admission.store_errors():
                if self.keeper.delete(stream):
                    return True
        raise self._admission.refuse(
            "duplicate", f"stream {name_of(stream)!r} is being opened by others: try again", 1.0
        )

    # -- facts -------------------------------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """The served models, JSON-ready; the first is the default."""
        return [describe(engine) for engine in self._engines.copy().values()]  # the dictionary grows at the start

    def engine(self, model: str | None) -> Engine:
        """The engine of a served model; ``None``: the first one. Raises :class:`Refused`."""
        return self._admission.engine(model)

    def describe(self, session: Session) -> dict[str, Any]:
        """The description of a stream for its client: position, latency, inputs and outputs."""
        return describe_stream(session, session.engine.manifest)

    def model_of(self, stream: str) -> str | None:
        """The model of a stream that is awake."""
        session = self._table.get(stream)
        return None if session is None else session.model

    def look(self, stream: str) -> dict[str, Any] | None:
        """Position and state of a stream, awake or asleep, without waking it; ``None``: there is none. Waits for the
        disk. Raises :class:`Refused`."""
        session = self._table.get(stream)
        if session is not None:
            return look_awake(session, self.keeper.acknowledged(session) or 0, self._clock())
        return look_asleep(stream, self._admission, self.keeper)

    def stuck(self) -> str | None:
        """A message that names the model which had work for ``stuck_seconds`` without a finished batch; ``None`` if all
        is well."""
        seconds = self.settings.stuck_seconds
        for engine in [*self._engines.copy().values(), *self._reloader.old]:
            if engine.stuck(seconds):
                return f"model {engine.manifest.name} has work and no batch came back for {seconds:g} s"
        return None

    def gone(self) -> str | None:
        """The refusal that redirects new streams; ``None``: they start here."""
        url = self._admission.elsewhere
        return None if url is None else f"moved: every new stream goes on at {url}"

    def wake_late(self) -> None:
        """The store, unreadable at the start, can be read now: wake the streams of the last run."""
        self._admission.wake_all(late=True)

    def disk_trouble(self) -> str | None:
        """Why nothing can be saved; ``None`` if all is well."""
        trouble = self.keeper.disk.trouble
        return None if trouble is None else str(trouble)

    def checkpoint(self, *, whole: bool = False) -> None:
        self.keeper.checkpoint(whole=whole)

    def sweep(self) -> None:
        self.keeper.sweep()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _open_for_streams(self) -> None:
        if self._draining:
            raise self._admission.refuse("draining", "the daemon is going down", 1.0)

    def _rejoin(
        self, key: str, request: StreamRequest, sink: Sink, after_seq: int | None, source: str
    ) -> Session | None:
        session = self._table.get(key)
        if session is None or session.state in ("ended", "closed") or (after_seq is None and session.ending):
            return None
        self._admission.match(session, request)
        if not self._admission.attach(session, sink, after_seq):
            return None
        self.metrics.resumes.labels(source).inc()
        return session
