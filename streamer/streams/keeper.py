"""The keeper: checkpoints, acknowledgements, eviction, and deletion from the disk.

One thread works in rounds. Threads that must not wait for the disk (a lane, the event loop) leave a note, and the
keeper's thread carries it out. Only :meth:`Keeper.forget` may be called under a session's lock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from streamer.metrics import Metrics
from streamer.store import Store, StoreError
from streamer.streams.checkpoints import Checkpoints
from streamer.streams.session import Session
from streamer.streams.table import StreamTable

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Keeper"]

log = logging.getLogger(__name__)


class Keeper:
    """``clock``: monotonic seconds, for grace and idle times."""

    def __init__(
        self, table: StreamTable, settings: Settings, metrics: Metrics, store: Store | None, clock: Callable[[], float]
    ) -> None:
        self.disk, self._durable = Checkpoints(store, metrics), store is not None
        self._table, self._settings, self._metrics, self._clock = table, settings, metrics, clock
        self._lock = threading.Lock()
        self._saved: dict[str, tuple[Session, int, int]] = {}  # version and position in the last checkpoint
        self._notes: dict[str, bool] = {}  # ids of streams that left memory, and whether their snapshots are deleted
        self._asked: list[tuple[Session, Callable[[int], None]]] = []  # to be saved at once
        self._writing = threading.RLock()  # one checkpoint, eviction or deletion at a time
        self._wake = threading.Event()
        self._stopped = self._draining = False
        #: Called in every round, in the keeper's thread.
        self.also: Callable[[], None] = lambda: None
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def drain(self) -> None:
        """Stop the rounds: the drain saves sessions itself. Requested saves and notes are still carried out."""
        self._draining = True

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        last = monotonic()
        while not self._stopped:
            self._wake.wait(max(0.0, last + self._settings.checkpoint_seconds - monotonic()))
            self._wake.clear()
            self._try(self.settle)
            self._try(self._save_asked)
            if monotonic() - last >= self._settings.checkpoint_seconds and not self._stopped:
                last = monotonic()
                if not self._draining:
                    self._try(self.look)
                    self._try(self.checkpoint)
                    self._try(self.sweep)
                    self._try(self.also)

    def _try(self, call: Callable[[], object]) -> None:
        """Call a part of a round. A failure is tried again in the next round, and does not stop the other parts."""
        try:
            call()
        except Exception:
            log.exception("the keeper failed")

    # -- from any thread, without waiting ----------------------------------------------------------------------------

    def forget(self, session: Session, *, delete: bool) -> bool:
        """Remove the stream from memory, and note that its snapshot is to be deleted (not ``delete``: retired). False
        if it was gone already. May be called under the session's lock."""
        with self._lock:
            if not self._table.leave(session):
                return False
            session.worthless = delete
            self._saved.pop(session.id, None)
            if session.lasting:
                self._notes[session.id] = delete
                self._wake.set()
        return True

    def ask(self, session: Session, call: Callable[[int], None]) -> None:
        """Save the stream soon, together with other requested ones; ``call`` gets the safe position, in the keeper's
        thread."""
        with self._lock:
            self._asked.append((session, call))
        self._wake.set()

    def acknowledged(self, session: Session) -> int | None:
        """The position up to which all rows are on the disk; ``None`` before the first checkpoint."""
        with self._lock:
            found = self._saved.get(session.id)
            return found[2] if found is not None and found[0] is session else None

    # -- from threads that may wait ----------------------------------------------------------------------------------

    def settle(self, id: str | None = None) -> bool:
        """Carry out the notes on the disk, at least that of ``id``, before a new stream may have that id. A failed note
        is tried again at the next call. False if the note of ``id`` failed; without an id, if any failed."""
        with self._lock:
            if not self._notes or (id is not None and id not in self._notes):
                return True
        with self._writing:
            with self._lock:
                notes = dict(self._notes)
            for gone, delete in notes.items():
                if self.disk.put_away(gone, delete=delete):
                    with self._lock:
                        self._notes.pop(gone, None)
        with self._lock:
            return id not in self._notes if id is not None else not self._notes

    def delete(self, id: str) -> bool:
        """Delete a sleeping stream. False if it is awake, or wakes meanwhile. Raises :class:`StoreError`."""
        with self._writing:
            if self._table.get(id) is not None:
                return False
            if not self.disk.put_away(id, delete=True):
                raise StoreError("what is saved of the stream could not be deleted")
            return self._table.deleted(id)

    def look(self) -> None:
        """Check whether the disk can be written."""
        self.disk.look(self._settings.min_free_bytes)

    def checkpoint(self, *, whole: bool = False) -> None:
        """Write the sessions that changed since the last checkpoint, then acknowledge the written positions to the
        clients.

        Not ``whole``: only the beginning of a long buffer is written, see :meth:`Session.snapshot`.
        """
        with self._writing, self._metrics.save_seconds.time():
            self.settle()
            sessions = [session for session in self._table.all() if session.lasting]
            with self._lock:
                known = {id: version for id, (_, version, _) in self._saved.items()}
            changed = [
                session
                for session in sessions
                if known.get(session.id, -1) != session.version or (whole and session.listening)
            ]
            group, until = self._settings.max_saved_together, self._patience()
            for first in range(0, len(changed), group):
                self._save(changed[first : first + group], whole=whole, until=until)

    def sweep(self) -> None:
        """Evict streams whose clients are away beyond the grace time, or silent beyond the idle time."""
        now, idle, until = self._clock(), self._settings.idle_seconds, self._patience()
        self._table.note_away(now)
        for session in self._table.away_since(now - self._settings.grace_seconds):
            self._try(partial(self.evict, session, "grace", until=until))
        for session in self._table.all():
            if idle and session.sink is not None and now - session.last_input >= idle and not session.busy:
                message = f"nothing came for {idle:g} s (idle_seconds)" if session.state == "active" else None
                self._try(partial(self.evict, session, "idle_timeout", message, until))
        self.disk.purge(self._settings.keep_seconds)

    def make_room(self, model: str) -> bool:
        """Put the model's stream that has been without a client the longest to sleep. False if none can sleep: without
        a store no stream sleeps, a stream that can't be saved stays, and one that is over has no slot."""
        if not self._durable:
            return False
        until = self._patience()
        for session in self._table.away_since(self._clock()):
            has_slot = session.model == model and session.state in ("active", "ending")
            if has_slot and session.lasting and self.evict(session, "capacity", until=until):
                return True
        return False

    def hand_over(self, session: Session, received: int, data: bytes, event: dict[str, Any]) -> bool:
        """Complete the move of a stream that the caller holds, and that continues elsewhere from ``received``: ``data``
        replaces it on the disk and its client gets ``event``. False if a later position was acknowledged meanwhile, or
        the stream left. Raises :class:`StoreError`: the stream stays."""
        with self._writing:
            if not self._table.holds(session) or (self.acknowledged(session) or 0) > received:
                return False
            self.settle(session.id)
            self.disk.put_asleep(session.id, data)
            session.tell(event)
            session.close()
            self.forget(session, delete=False)
            self.settle(session.id)
        return True

    def replace(self, id: str, data: bytes, fits: Callable[[bytes | None], None]) -> bool:
        """Write ``data`` as the snapshot of a sleeping or a new stream; ``fits`` raises if it may not replace the
        present snapshot. False if the stream is awake. Raises :class:`StoreError`."""
        with self._writing:
            self.settle(id)
            if self._table.get(id) is not None:
                return False
            fits(self.disk.get(id))
            self.disk.put_asleep(id, data)
            return self._table.deleted(id)

    def evict(self, session: Session, reason: str, message: str | None = None, until: float | None = None) -> bool:
        """Put a stream to sleep. It is saved first, so that a later resume finds it: a stream that can't be saved stays
        awake, and so does one that is resumed at this moment. ``until``: monotonic time, for a chunk in flight."""
        # waiting rows are run after the resume, from the snapshot. A stream without any is not held while the disk is
        # waited for: a client that comes back meanwhile is served at once, and the stream stays awake
        with self._writing, session.held() if session.busy else nullcontext():
            done, version = session.state not in ("active", "ending"), None
            if not done and session.lasting:
                saved = self._save([session], whole=True, until=self._patience() if until is None else until)
                if session not in saved:
                    return False
                version = saved[session][0] if self._durable else None
            if not session.leave(reason, message, version):
                return False
            if not self.forget(session, delete=done or not session.lasting):
                return False  # another thread closed it at this moment
            self.settle(session.id)
        if not done:  # else its client had all events, and it was kept only in case its last event was lost
            self._metrics.evictions.labels(reason).inc()
            log.info("stream evicted", extra={"stream": session.id, "reason": reason})
        return True

    # -- inside ------------------------------------------------------------------------------------------------------

    def _save_asked(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        if not asked:
            return
        sessions = list(dict.fromkeys(session for session, _ in asked if session.lasting))
        try:
            with self._writing:
                self.settle()
                self._save(sessions, whole=True, until=self._patience())
        finally:
            for session, call in asked:
                self._try(partial(call, self.acknowledged(session) or 0))

    def _save(self, sessions: Sequence[Session], *, whole: bool, until: float) -> dict[Session, tuple[int, int]]:
        """Save the sessions; returns version and position of those that are on the disk now."""
        positions = self.disk.save(sessions, whole=whole, until=until)
        for session, (version, position) in positions.items():
            with self._lock:
                here = self._table.holds(session)
                before = self._saved.get(session.id) if here else None
                if here:
                    self._saved[session.id] = (session, version, position)
                    self._notes.pop(session.id, None)  # of an older stream, which this one was written over
                else:  # it left while it was written, so the note about its snapshot came before the snapshot
                    self._notes[session.id] = session.worthless
            if not here:
                self.settle(session.id)
            if before is None or before[2] != position:
                session.acknowledge(position)
        return positions

    def _patience(self) -> float:
        """The common deadline for the waits for all chunks in flight: a stuck lane may hold many of them."""
        return monotonic() + self._settings.stuck_seconds
