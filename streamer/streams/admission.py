"""Brings streams into memory: a request starts a stream, wakes it from the disk, finds it by its key, or is refused.

Nothing here is called under a session's lock. Methods that may wait for the disk say so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar, cast

from streamer.engine.engine import Engine
from streamer.metrics import Metrics
from streamer.names import NameRefusedError, check_name, name_of, owner_of
from streamer.refusals import NoSlot, RateError, Refused
from streamer.store import DamagedError, StoreError
from streamer.streams.chunker import Policy
from streamer.streams.headroom import Headroom
from streamer.streams.intake import Limits
from streamer.streams.keeper import Keeper
from streamer.streams.moved import moved_to
from streamer.streams.revision import Reviser
from streamer.streams.session import Session, Sink
from streamer.streams.snapshot import Snapshot, SnapshotError
from streamer.streams.table import Claim, StreamTable

if TYPE_CHECKING:
    from streamer.settings import Settings
    from streamer.streams.reload import Reloader

__all__ = ["Admission", "Quota", "StreamRequest"]

log = logging.getLogger(__name__)

T = TypeVar("T")
#: Number of streams that an owner may have awake; ``None``: any number.
Quota = Callable[[str], int | None]


@dataclass(frozen=True)
class StreamRequest:
    """A client's request for a stream. ``model`` ``None``: the first one. ``sample_rate`` in Hz of sound, ``None``: the
    model's own, or rows of another kind. ``conditions``: inputs set once for a stream, by name. Not ``lasting``: the
    stream is not saved."""

    model: str | None = None
    sample_rate: int | None = None
    overflow: str = "wait"
    options: Mapping[str, Any] = field(default_factory=dict)
    conditions: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = True


class Admission:
    """``engines`` by the models' names, the first one the default."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        table: StreamTable,
        keeper: Keeper,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float],
        quota: Quota = lambda owner: None,
        behind: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.headroom = Headroom(engines, table, settings, behind)
        self.reviser: Reviser | None = None
        #: The versions of each model that have streams; ``None``: one version.
        self.versions: Reloader | None = None
        #: The daemon to which new streams are redirected; ``None``: they start here.
        self.elsewhere: str | None = None
        self._engines, self._table, self._keeper, self._settings = engines, table, keeper, settings
        self._metrics, self._clock, self._quota = metrics, clock, quota
        self._limits = Limits(
            settings.buffer_seconds,
            settings.buffer_bytes,
            settings.max_replay_events,
            settings.max_replay_bytes,
            settings.max_waiting_markers,
        )

    def refuse(self, reason: str, message: str, retry_after: float | None = None) -> Refused:
        """Count a refusal; the caller raises it."""
        self._metrics.refusals.labels(reason).inc()
        return Refused(reason, message, retry_after)

    def engine(self, model: str | None) -> Engine:
        """Raises :class:`Refused`."""
        found = next(iter(self._engines.values()), None) if model is None else self._engines.get(model)
        if found is None:
            known = ", ".join(self._engines) or "none"
            raise self.refuse("unknown_model", f"no model {str(model)[:100]!r} is served here: {known}")
        return found

    def digests(self, model: str) -> list[str]:
        """Digests of a served model's files, the newest first. Raises :class:`Refused`."""
        old = [] if self.versions is None else self.versions.old
        return [self.engine(model).model.digest, *(e.model.digest for e in old if e.manifest.name == model)]

    def check(self, key: str) -> None:
        """Raises :class:`Refused` for a key that is not a name."""
        try:
            check_name(name_of(key))
        except NameRefusedError as error:
            raise self.refuse("key", f"key {error}") from error

    def check_load(self, engine: Engine) -> None:
        """Raises :class:`Refused` where one more stream could not be served in real time, even if slots are free."""
        if (lack := self.headroom.lack(engine)) is not None:
            why, after = lack
            raise self.refuse("overload", f"{why}: try again in a moment, or where there is more room", after)

    # -- new ones ----------------------------------------------------------------------------------------------------

    def begin(self, id: str, request: StreamRequest, sink: Sink, claim: Claim | None = None) -> Session | None:
        """Start a new stream. ``None`` if another one has taken its id meanwhile: with a ``claim``, also if that one
        has left again. Raises :class:`Refused`."""
        if self.elsewhere is not None:
            raise self.moved("every new stream", self.elsewhere)
        engine = self.engine(request.model)
        if request.lasting and not self._settings.unsaved_streams and (trouble := self._keeper.disk.trouble):
            text = f"nothing can be saved now, so that no new stream is taken (setting unsaved_streams): {trouble}"
            raise self.refuse("store", text, 5.0)
        if request.overflow not in ("wait", "gap"):
            raise self.refuse("options", f"overflow is {request.overflow!r}: wait or gap")
        if request.options.get("revise") is True and self.reviser is None:
            raise self.refuse("options", "finals are not heard again here (setting revise): leave the option out")
        self.check_load(engine)
        if request.options.get("hotwords"):
            self._expecting(engine, request.options["hotwords"])
        session = self._make(
            id,
            engine,
            sample_rate=request.sample_rate,
            overflow=cast(Policy, request.overflow),
            options=self._with_defaults(engine, request.options),
            conditions=request.conditions,
            sink=sink,
            lasting=request.lasting,
        )
        if not self._table.enter(session, self._clock(), claim):
            session.close()
            return None
        self._check_quota(session)
        self._metrics.opened.labels(session.model).inc()
        return session

    def with_room(self, call: Callable[[], T], model: str | None) -> T:
        """``call`` opens a stream of the model. Where all slots are taken, the stream that has been without a client
        the longest is put to sleep first. May wait for the disk."""
        engine = self.engine(model)
        if engine.arena.used >= engine.arena.capacity:
            self._keeper.make_room(engine.manifest.name)
        return call()

    # -- existing streams --------------------------------------------------------------------------------------------

    def attach(self, session: Session, sink: Sink, after_seq: int | None) -> bool:
        """False if it was closed at this moment."""
        if not session.attach(sink, after_seq):
            return False
        self._table.came_back(session)
        if safe := self._keeper.acknowledged(session):  # it may have been sent while no client was attached
            session.tell({"type": "ack", "position": safe})
        return True

    def match(self, session: Session, request: StreamRequest) -> None:
        """Raises :class:`Refused` if a stream with a key differs from the requested one."""
        rate, differs = session.sample_rate, []
        if request.model not in (None, session.model):
            differs.append(f"the model {session.model}")
        if request.sample_rate not in (None, rate):
            differs.append("no sample rate" if rate is None else f"{rate} Hz")
        if request.options and dict(self._with_defaults(session.engine, request.options)) != session.options:
            differs.append("other options")
        if not differs and request.conditions:
            try:
                differs += [] if session.has_conditions(request.conditions) else ["other conditions"]
            except ValueError as error:
                raise self.refuse("options", str(error)) from error
        if differs:
            said = " and ".join(differs)
            raise self.refuse(
                "conflict", f"stream {name_of(session.id)!r} goes on with {said}: delete it, or take another key"
            )

    def saved(self, id: str) -> bytes | None:
        """The stream's snapshot, after the keeper's notes about it are carried out. Waits for the disk. Raises
        :class:`Refused`."""
        if not self._keeper.settle(id):
            raise self.refuse("store", "the session store failed: what is over of the stream is still there", 5.0)
        with self.store_errors():
            data = self._keeper.disk.get(id)
        if data is not None and (url := moved_to(data)) is not None:
            raise self.moved(f"stream {id[:64]!r}", url)
        return data

    def moved(self, what: str, url: str) -> Refused:
        """Count a refusal; the caller raises it."""
        self._metrics.refusals.labels("moved").inc()
        return Refused("moved", f"{what} goes on at {url}: connect there", None, url)

    @contextmanager
    def store_errors(self) -> Iterator[None]:
        """Turns failures of the store into :class:`Refused`."""
        try:
            yield
        except DamagedError as error:
            raise self.refuse("snapshot", f"the saved stream can't go on: {error}") from error
        except StoreError as error:
            raise self.refuse("store", f"the session store failed: {error}", 5.0) from error

    def wake(self, id: str, data: bytes, claim: Claim | None = None, *, room: bool = True) -> Session | None:
        """Wake the saved stream, or return the one of its id that is awake already. ``None``: it was deleted, or woken
        and put to sleep again, since the ``claim`` was made. ``room``: free a slot for it. Raises :class:`Refused`."""
        try:
            snapshot = Snapshot.from_bytes(data)
            engine = self.engine(snapshot.model)
            if self.versions is not None:
                engine = self.versions.of(snapshot.model, snapshot.digest) or engine
            given = {"sample_rate": snapshot.sample_rate, "overflow": snapshot.overflow, "options": snapshot.options}
            if room and not snapshot.finished:
                self.check_load(engine)
            make = partial(self._make, id, engine, snapshot=snapshot, **given)
            session = self.with_room(make, snapshot.model) if room else make()
        except SnapshotError as error:
            self._metrics.store_errors.labels("snapshot").inc()
            raise self.refuse("snapshot", f"the saved stream can't go on: {error}") from error
        if self._table.enter(session, self._clock(), claim):
            if room:  # else it is the start that brings it back
                self._check_quota(session)
            return session
        session.close()
        return self._table.get(id)

    def wake_all(self, *, late: bool = False) -> None:
        """Wake the streams of the last run. ``late``: the disk could not be read at the start, and clients have come
        since."""
        count = 0
        for id, saved in self._keeper.disk.live():
            if late and self._table.get(id) is not None:
                continue
            try:
                with self._table.claim(id) as claim:  # if late, clients may have woken it and put it to sleep meanwhile
                    data = self._keeper.disk.get(id) if late else saved
                    count += data is not None and self.wake(id, data, claim, room=False) is not None
            except Refused as error:
                self._keeper.disk.put_away(id, delete=False)  # from here on its time runs
                log.warning("a saved stream is not brought back", extra={"stream": id, "reason": error.message})
            except Exception:  # one that can't go on does not keep the daemon from starting
                log.exception("a saved stream could not be brought back", extra={"stream": id})
        if count:
            log.info("streams brought back", extra={"streams": count})

    def _check_quota(self, session: Session) -> None:
        """Check the owner's quota after a stream was entered; a stream beyond the quota is removed again. Raises
        :class:`Refused`."""
        owner = owner_of(session.id)
        most = self._quota(owner) if owner else None
        if most is not None and self._table.count(owner) > most:
            self._table.leave(session)
            session.close()
            text = f"{most} streams of this token's owner are awake already (max_streams): end one, or wait"
            raise self.refuse("quota", text, 5.0)

    def wait_for_end(self, session: Session) -> None:
        """Wait until an ended stream is over, so that a new stream of its key may begin. Raises :class:`Refused`."""
        over = Event()
        session.when_run(over.set)
        if not over.wait(self._settings.stuck_seconds):
            text = (
                f"the stream {name_of(session.id)!r} has been ended, and what it was sent is still being run: try again"
            )
            raise self.refuse("duplicate", text, 1.0)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _with_defaults(self, engine: Engine, options: Mapping[str, Any]) -> Mapping[str, Any]:
        if engine.manifest.task != "transcribe":
            return options
        defaults = {"numbers": self._settings.numbers, "text": self._settings.text}
        return {**{name: value for name, value in defaults.items() if value != "spoken"}, **options}

    def _expecting(self, engine: Engine, hotwords: Any) -> None:
        """Raises :class:`Refused` for hotwords beyond the bounds. The task checks everything else about them."""
        if not isinstance(hotwords, list) or not all(isinstance(one, str) for one in hotwords):
            return
        if len(hotwords) > (most := self._settings.max_hotwords):
            raise self.refuse("options", f"{len(hotwords)} hotwords are too many: {most} at most (max_hotwords)")
        if long := [one for one in hotwords if len(one) > self._settings.max_hotword_letters]:
            most = self._settings.max_hotword_letters
            raise self.refuse("options", f"hotword {long[0][:60]!r} is longer than {most} (max_hotword_letters)")
        lists = self._table.hotwords(engine.manifest.name)
        if tuple(hotwords) not in lists and len(lists) >= self._settings.max_hotword_sets:
            raise self.refuse(
                "capacity", f"streams have {len(lists)} lists of hotwords already (max_hotword_sets)", 5.0
            )

    def _make(self, id: str, engine: Engine, **given: Any) -> Session:
        try:
            return Session(id, engine, limits=self._limits, on_close=self._closed, reviser=self.reviser, **given)
        except NoSlot as error:
            raise self.refuse("capacity", str(error), 5.0) from error
        except SnapshotError:
            raise
        except RateError as error:
            raise self.refuse("rate", str(error)) from error
        except ValueError as error:
            raise self.refuse("options", str(error)) from error

    def _closed(self, session: Session, reason: str) -> None:
        """Forget a session that failed: its state is invalid. Called from a lane, under the session's lock."""
        self._metrics.evictions.labels(reason).inc()
        self._keeper.forget(session, delete=True)
