"""What lasts, and for how long: checkpoints, acknowledgements, eviction, and what is deleted from the disk.

One thread does it in rounds. Whoever must not wait for the disk (a lane, the event loop) leaves a note, and the thread
does the rest: nothing here is called under a session's lock but :meth:`Keeper.forget`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from streamer.metrics import Metrics
from streamer.store import Store
from streamer.streams.checkpoints import Checkpoints
from streamer.streams.session import Session
from streamer.streams.table import Table

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = ["Keeper"]

log = logging.getLogger(__name__)


class Keeper:
    """``clock``: monotonic seconds, for grace and idle times."""

    def __init__(
        self, table: Table, settings: Settings, metrics: Metrics, store: Store | None, clock: Callable[[], float]
    ) -> None:
        self.disk, self._durable = Checkpoints(store, metrics), store is not None
        self._table, self._settings, self._metrics, self._clock = table, settings, metrics, clock
        self._lock = threading.Lock()
        self._saved: dict[str, tuple[Session, int, int]] = {}  # version and position in the last checkpoint
        self._notes: dict[str, bool] = {}  # ids of streams that left, whether their snapshots go
        self._asked: list[tuple[Session, Callable[[int], None]]] = []  # to be saved at once
        self._writing = threading.RLock()  # one checkpoint, eviction or deletion at a time
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    # -- life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

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
            try:
                self.settle()
                self._save_asked()
                if monotonic() - last >= self._settings.checkpoint_seconds and not self._stopped:
                    last = monotonic()
                    self.checkpoint()
                    self.sweep()
            except Exception:  # the next round may go better; without rounds nobody is acknowledged any more
                log.exception("the keeper failed")

    # -- from any thread, without waiting ----------------------------------------------------------------------------

    def forget(self, session: Session, *, delete: bool) -> bool:
        """The stream is no longer in memory, and soon not on the disk (or, not ``delete``, retired there). False if it
        was gone already. May be called under the session's lock."""
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
        """Save the stream soon, together with others that are asked for; ``call`` is told the position that is safe,
        from the keeper's thread."""
        with self._lock:
            self._asked.append((session, call))
        self._wake.set()

    def acknowledged(self, session: Session) -> int | None:
        """The position up to which all is on the disk; ``None`` before the first checkpoint."""
        with self._lock:
            found = self._saved.get(session.id)
            return found[2] if found is not None and found[0] is session else None

    # -- from threads that may wait ----------------------------------------------------------------------------------

    def settle(self, id: str | None = None) -> None:
        """Do on the disk what was noted, of ``id`` at least. Before a stream of that id may begin anew."""
        with self._lock:
            if not self._notes or (id is not None and id not in self._notes):
                return
        with self._writing:
            with self._lock:
                notes, self._notes = self._notes, {}
            for gone, delete in notes.items():
                self.disk.put_away(gone, delete=delete)

    def checkpoint(self, *, whole: bool = False) -> None:
        """Write what changed since the last time, then acknowledge to the clients what was written.

        Of a long buffer only its beginning is, unless ``whole``: see :meth:`Session.snapshot`.
        """
        with self._writing, self._metrics.save_seconds.time():
            self.settle()
            sessions = [session for session in self._table.all() if session.lasting]
            with self._lock:
                known = {id: version for id, (_, version, _) in self._saved.items()}
            changed = [session for session in sessions if known.get(session.id, -1) != session.version]
            group, until = self._settings.max_saved_together, self._patience()
            for first in range(0, len(changed), group):
                self._save(changed[first : first + group], whole=whole, until=until)

    def sweep(self) -> None:
        """Evict who stayed away beyond the grace time, and who is silent beyond the idle time."""
        now, idle = self._clock(), self._settings.idle_seconds
        for session in self._table.away_since(now - self._settings.grace_seconds):
            self.evict(session, "grace")
        for session in self._table.all():
            if idle and session.sink is not None and now - session.last_input >= idle and not session.busy:
                message = f"nothing came for {idle:g} s (idle_seconds)" if session.state == "active" else None
                self.evict(session, "idle_timeout", message)
        self.disk.purge(self._settings.keep_seconds)

    def make_room(self, model: str) -> bool:
        """Put the stream of the model that has been without a client the longest to sleep. False if there is none that
        can be: without a store nothing sleeps, and what can't be written stays."""
        if not self._durable:
            return False
        for session in self._table.away_since(self._clock()):
            if session.model == model and session.lasting and self.evict(session, "capacity"):
                return True
        return False

    def evict(self, session: Session, reason: str, message: str | None = None) -> bool:
        """Saved first, so that a later resume finds it. A client that comes back at this moment keeps its stream."""
        with self._writing, session.held():  # what is not run now is run after the resume, from the snapshot
            done = session.state not in ("active", "ending")
            if not done and session.lasting:
                self._save([session], whole=True, until=self._patience())
                if reason == "capacity" and self.acknowledged(session) != session.received:
                    return False
            if not session.leave(reason, message):
                return False
            self.forget(session, delete=done or not session.lasting)
            self.settle()
        if not done:  # else it had been told everything, and was kept only in case that its end was lost on the way
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
                call(self.acknowledged(session) or 0)

    def _save(self, sessions: Sequence[Session], *, whole: bool, until: float) -> None:
        positions = self.disk.save(sessions, whole=whole, until=until)
        for session, (version, position) in positions.items():
            with self._lock:
                here = self._table.holds(session)
                before = self._saved.get(session.id) if here else None
                if here:
                    self._saved[session.id] = (session, version, position)
            if not here:  # it left while it was written: what was said of its snapshot then came too early
                self.disk.put_away(session.id, delete=session.worthless)
            if before is None or before[2] != position:
                session.tell({"type": "ack", "position": position})

    def _patience(self) -> float:
        """Until when chunks in flight are waited for, all of them together: behind a stuck lane many may be."""
        return monotonic() + self._settings.stuck_seconds
