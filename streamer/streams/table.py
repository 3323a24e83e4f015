"""Which streams there are, and which of them have lost their client.

The table's lock is the last in order: it is taken under a session's lock, and never the other way round.
"""

from __future__ import annotations

import threading

from streamer.streams.session import Session

__all__ = ["Table"]


class Table:
    """Thread-safe. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._away: dict[str, float] = {}  # detached streams: since when

    def get(self, id: str) -> Session | None:
        with self._lock:
            return self._sessions.get(id)

    def all(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def hotwords(self, model: str) -> set[tuple[str, ...]]:
        """The different lists that streams of a model have."""
        mine = (session.options.get("hotwords") for session in self.all() if session.model == model)
        return {tuple(words) for words in mine if words}

    def holds(self, session: Session) -> bool:
        return self.get(session.id) is session

    def enter(self, session: Session, now: float) -> bool:
        """False if there is another one of its id."""
        with self._lock:
            mine = self._sessions.setdefault(session.id, session) is session
            if mine and session.sink is None:
                self._away[session.id] = now
            return mine

    def leave(self, session: Session) -> bool:
        """False if it was not there."""
        with self._lock:
            if self._sessions.get(session.id) is not session:
                return False
            del self._sessions[session.id]
            self._away.pop(session.id, None)
            return True

    def went_away(self, session: Session, now: float) -> None:
        with self._lock:
            if self._sessions.get(session.id) is session:
                self._away[session.id] = now

    def note_away(self, now: float) -> None:
        """Those that have lost their client without anybody saying so: a sink failed."""
        for session in self.all():
            if session.sink is None:
                with self._lock:
                    if self._sessions.get(session.id) is session:
                        self._away.setdefault(session.id, now)
                if session.sink is not None:  # it came at this moment
                    self.came_back(session)

    def came_back(self, session: Session) -> None:
        with self._lock:
            if self._sessions.get(session.id) is session:
                self._away.pop(session.id, None)

    def away_since(self, before: float) -> list[Session]:
        """Those whose clients left at ``before`` or earlier, the longest away first."""
        with self._lock:
            found = sorted((since, id) for id, since in self._away.items() if since <= before)
            return [self._sessions[id] for _, id in found]

    def clear(self) -> None:
        with self._lock:
            self._sessions.clear()
            self._away.clear()
