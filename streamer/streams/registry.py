"""All models and all streams: who may come in, who waits for a client, what is on the disk, and how it ends.

The registry owns threads and knows nothing of asyncio, so it works the same inside the daemon and inside a command.
Its own lock guards the table of sessions and is never held while a session's is taken.
"""

from __future__ import annotations

import logging
import platform
import threading
import uuid
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from streamer import __version__
from streamer.engine.catalogue import default_models, resolve
from streamer.engine.engine import Engine
from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.refusals import NoSlot, RateError, Refused
from streamer.store import Store, StoreError
from streamer.streams.checkpoints import Checkpoints
from streamer.streams.chunker import Policy
from streamer.streams.loading import NoAudioError, describe, load_engine
from streamer.streams.numbers import formatter
from streamer.streams.session import Limits, Session, Sink
from streamer.streams.snapshot import Snapshot, SnapshotError

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Registry"]

log = logging.getLogger(__name__)


class Registry:
    """``store`` ``None``: nothing survives the process, and acknowledgements say only what was received.

    ``clock``: monotonic seconds, for grace and idle times.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, store: Store | None = None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.settings, self.metrics, self.store = settings, metrics, store
        self._clock = clock
        self._disk = Checkpoints(store, metrics)
        self._limits = Limits(settings.buffer_seconds, settings.max_replay_events, settings.max_waiting_markers)
        self._engines: dict[str, Engine] = {}
        #: Files among the models that take no audio, by task, once :meth:`load` has been called.
        self.others: dict[str, list[Path]] = {"forecast": [], "generate": []}
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._away: dict[str, float] = {}  # detached streams: since when
        self._saved: dict[str, tuple[int, int]] = {}  # version and position in the last checkpoint
        self._checkpointing = threading.Lock()
        self._draining = False
        self._stop = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    # -- life --------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Models, warm-up, sessions of the last run. Raises :class:`ModelError`: without its models a registry is no
        use."""
        names = list(self.settings.models) or default_models()
        if not names:
            raise ModelError("no model is installed: name .onnx files in the setting models")
        for name in names:
            try:
                engine = load_engine(resolve(name), self.settings, self.metrics, self._all)
            except NoAudioError as error:
                if error.task not in self.others:
                    raise
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
        self._keeper.start()

    def drain(self, timeout: float) -> int:
        """Refuse new streams, finish what was received (whole chunks), save, tell the clients; how many were saved."""
        self._draining = True
        deadline = self._clock() + timeout
        while self._clock() < deadline and any(s.busy for s in self._all()) and not self._stop.wait(0.005):
            pass
        sessions = self._all()
        if left := sum(session.busy for session in sessions):
            log.warning("draining took too long, what was not run is saved", extra={"streams": left})
        self.checkpoint(whole=True)
        with self._lock:
            saved = {id: position for id, (_, position) in self._saved.items()}
        for session in sessions:
            if session.state == "active":
                position = saved.get(session.id, 0) if self.store is not None else 0
                session.tell({"type": "restart", "position": position, "retry_after": 1.0})
        return sum(session.id in saved for session in sessions) if self.store is not None else 0

    def close(self) -> bool:
        """Threads end; streams are dropped as they are (:meth:`drain` saves them). False if a lane is stuck."""
        self._stop.set()
        if self._keeper.is_alive():
            self._keeper.join()
        ended = [engine.close(self.settings.stuck_seconds) for engine in self._engines.values()]
        for session in self._all():
            session.close()
        with self._lock:
            self._sessions.clear()
        if self.store is not None:
            self.store.close()
        return all(ended)

    # -- streams -----------------------------------------------------------------------------------------------------

    def open(
        self,
        *,
        model: str | None,
        sample_rate: int,
        sink: Sink,
        stream: str | None = None,
        overflow: str = "wait",
        options: Mapping[str, Any] | None = None,
    ) -> Session:
        """A new stream. ``model`` ``None``: the first one. ``stream``: the caller's own id. May be :class:`Refused`."""
        if self._draining:
            raise self._refuse("draining", "the daemon is going down", 1.0)
        engine = self._engine(model)
        if overflow not in ("wait", "gap"):
            raise self._refuse("options", f"overflow is {overflow!r}: wait or gap")
        # a chunk that has been ready for so long says that the machine is full, even if slots are free
        if (waited := engine.waited()) > max(self.settings.overload_seconds, 2 * engine.manifest.chunk_seconds):
            raise self._refuse("overload", f"the machine is {waited:.1f} s behind already", waited + 1)
        id = stream or uuid.uuid4().hex
        with self._lock:
            if id in self._sessions:
                raise self._refuse("duplicate", f"stream {id} exists already: resume it, or choose another id")
        if engine.manifest.task == "transcribe" and self.settings.numbers != "spoken":
            options = {"numbers": self.settings.numbers, **(options or {})}
        session = self._make(id, engine, sample_rate, cast(Policy, overflow), options, sink=sink)
        self._enter(session)
        self.metrics.opened.labels(session.model).inc()
        return session

    def attach(self, stream: str, sink: Sink, *, after_seq: int = 0) -> Session:
        """A client comes back: within the grace time, or later if the store has its stream. Raises :class:`Refused`.

        Go on feeding from ``session.received``. The sink gets at once what came after ``after_seq``.
        """
        if self._draining:
            raise self._refuse("draining", "the daemon is going down", 1.0)
        with self._lock:
            session = self._sessions.get(stream)
        source = "memory"
        if session is None or not session.attach(sink, after_seq):  # not there, or evicted at this moment
            source = "store"
            session = self._wake(stream)
            session.attach(sink, after_seq)
        with self._lock:
            self._away.pop(stream, None)
        self.metrics.resumes.labels(source).inc()
        return session

    def detach(self, session: Session, sink: Sink | None = None) -> None:
        """The client went away. With ``sink`` nothing happens if the stream was meanwhile resumed with another one."""
        if session.detach(sink):
            with self._lock:
                if self._sessions.get(session.id) is session:
                    self._away[session.id] = self._clock()

    def discard(self, session: Session) -> None:
        """The stream is done with, its snapshot too."""
        session.close()
        self._forget(session, delete=True)

    # -- facts -------------------------------------------------------------------------------------------------------

    def models(self) -> list[dict[str, Any]]:
        """What is served, JSON-ready; the first is the default."""
        return [describe(engine) for engine in self._engines.values()]

    def describe(self, session: Session) -> dict[str, Any]:
        """What a client is told of its stream: where to go on, how long results take, and the rate of audio it gets."""
        manifest = self._engines[session.model].manifest
        task, spec = manifest.task, manifest.input
        return {
            "stream": session.id,
            "model": session.model,
            "sample_rate": session.sample_rate,
            "chunk_seconds": session.chunk_seconds,
            "latency_seconds": session.latency_seconds,
            "position": session.received,
            **({"output_rate": spec.sample_rate} if task == "enhance" else {}),
        }

    def stuck(self) -> str | None:
        """Which model had work for ``stuck_seconds`` without a batch coming back; ``None`` if all goes well."""
        seconds = self.settings.stuck_seconds
        for name, engine in self._engines.items():
            if engine.stuck(seconds):
                return f"model {name} has work and no batch came back for {seconds:g} s"
        return None

    # -- the keeper --------------------------------------------------------------------------------------------------

    def checkpoint(self, *, whole: bool = False) -> None:
        """Write what changed since the last time, then acknowledge to the clients what was written.

        Of a long buffer only its beginning is, unless ``whole``: see :meth:`Session.snapshot`.
        """
        with self._checkpointing, self.metrics.save_seconds.time():
            with self._lock:
                changed = [s for s in self._sessions.values() if self._saved.get(s.id, (-1, 0))[0] != s.version]
            group, until = self.settings.max_saved_together, self._patience()
            for first in range(0, len(changed), group):
                self._save(changed[first : first + group], whole=whole, until=until)

    def sweep(self) -> None:
        """Evict who stayed away beyond the grace time, and who is silent beyond the idle time."""
        now, grace, idle = self._clock(), self.settings.grace_seconds, self.settings.idle_seconds
        with self._lock:
            gone = [self._sessions[id] for id, since in self._away.items() if now - since >= grace]
        for session in gone:
            self._evict(session, "grace")
        for session in self._all():
            if idle and session.sink is not None and now - session.last_audio >= idle and not session.busy:
                message = f"no audio for {idle:g} s (idle_seconds)" if session.state == "active" else None
                self._evict(session, "idle_timeout", message)
        self._disk.purge(self.settings.keep_seconds)

    def _keep(self) -> None:
        while not self._stop.wait(self.settings.checkpoint_seconds):
            try:
                self.checkpoint()
                self.sweep()
            except Exception:  # the next round may go better; without rounds nobody is acknowledged any more
                log.exception("the keeper failed")

    # -- inside ------------------------------------------------------------------------------------------------------

    def _engine(self, model: str | None) -> Engine:
        if model is None and self._engines:
            return next(iter(self._engines.values()))
        if model not in self._engines:
            known = ", ".join(self._engines)
            raise self._refuse("unknown_model", f"no model {str(model)[:100]!r} is served here: {known}")
        return self._engines[model]

    def _refuse(self, reason: str, message: str, retry_after: float | None = None) -> Refused:
        self.metrics.refusals.labels(reason).inc()
        return Refused(reason, message, retry_after)

    def _make(
        self,
        id: str,
        engine: Engine,
        sample_rate: int,
        overflow: Policy,
        options: Mapping[str, Any] | None,
        *,
        sink: Sink | None = None,
        snapshot: Snapshot | None = None,
    ) -> Session:
        try:
            return Session(
                id,
                engine,
                sample_rate=sample_rate,
                overflow=overflow,
                options=options,
                limits=self._limits,
                sink=sink,
                on_close=self._closed,
                snapshot=snapshot,
            )
        except NoSlot as error:
            raise self._refuse("capacity", str(error), 5.0) from error
        except SnapshotError:
            raise
        except RateError as error:
            raise self._refuse("rate", str(error)) from error
        except ValueError as error:
            raise self._refuse("options", str(error)) from error

    def _all(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def _enter(self, session: Session) -> None:
        with self._lock:
            if (other := self._sessions.setdefault(session.id, session)) is session and session.sink is None:
                self._away[session.id] = self._clock()
        if other is not session:  # two came at once with the same id
            session.close()
            raise self._refuse("duplicate", f"stream {session.id} exists already: resume it, or choose another id")

    def _forget(self, session: Session, *, delete: bool) -> None:
        session.worthless = delete
        with self._lock:
            if self._sessions.get(session.id) is not session:
                return
            del self._sessions[session.id]
            self._away.pop(session.id, None)
            self._saved.pop(session.id, None)
        self._disk.put_away(session.id, delete=delete)  # a checkpoint under way looks again after it has written

    def _closed(self, session: Session, reason: str) -> None:
        """A session gave up by itself: its state is worth nothing."""
        self.metrics.evictions.labels(reason).inc()
        self._forget(session, delete=True)

    def _evict(self, session: Session, reason: str, message: str | None = None) -> None:
        """Saved first, so that a later resume finds it. A client that comes back at this moment keeps its stream."""
        session.hold()  # what is not run now is run after the resume, from the snapshot
        done = session.state != "active"
        if not done:
            with self._checkpointing:
                self._save([session], whole=True, until=self._patience())
        if not session.leave(reason, message):
            session.go_on()
            return
        self._forget(session, delete=done)
        if done:  # it had been told everything, and was kept only in case that its end was lost on the way
            return
        self.metrics.evictions.labels(reason).inc()
        log.info("stream evicted", extra={"stream": session.id, "reason": reason})

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def _save(self, sessions: list[Session], *, whole: bool, until: float) -> None:
        positions = self._disk.save(sessions, whole=whole, until=until)
        with self._lock:
            left = [session for session in positions if self._sessions.get(session.id) is not session]
        for session in left:  # while it was written: what was said of its snapshot then came too early
            self._disk.put_away(session.id, delete=session.worthless)
        self._acknowledge(positions)

    def _patience(self) -> float:
        """Until when chunks in flight are waited for, all of them together: behind a stuck lane many may be."""
        return monotonic() + self.settings.stuck_seconds

    def _acknowledge(self, positions: Mapping[Session, tuple[int, int]]) -> None:
        for session, (version, position) in positions.items():
            with self._lock:
                before = self._saved.get(session.id)
                if self._sessions.get(session.id) is session:
                    self._saved[session.id] = (version, position)
            if before is None or before[1] != position:
                session.tell({"type": "ack", "position": position})

    def _restore_all(self) -> None:
        self.sweep()
        count = 0
        for id, data in self._disk.live():
            try:
                self._restore(id, data)
                count += 1
            except Refused as error:
                log.warning("a saved stream is not brought back", extra={"stream": id, "reason": error.message})
        if count:
            log.info("streams brought back", extra={"streams": count})

    def _wake(self, stream: str) -> Session:
        try:
            data = self._disk.get(stream)
        except StoreError as error:
            raise self._refuse("store", f"the session store failed: {error}", 5.0) from error
        if data is None:
            raise self._refuse("unknown_stream", f"no stream {stream[:64]!r} is known here: start a new one")
        return self._restore(stream, data)

    def _restore(self, id: str, data: bytes) -> Session:
        try:
            snapshot = Snapshot.from_bytes(data)
            engine = self._engine(snapshot.model)
            overflow = cast(Policy, snapshot.overflow)
            session = self._make(id, engine, snapshot.sample_rate, overflow, snapshot.options, snapshot=snapshot)
        except SnapshotError as error:
            self.metrics.store_errors.labels("snapshot").inc()
            raise self._refuse("snapshot", f"the saved stream can't go on: {error}") from error
        self._enter(session)
        return session
