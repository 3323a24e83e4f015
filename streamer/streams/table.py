"""The table of streams in memory, and of those without a client.

The table's lock is the last in order: it is taken under a session's lock, and never the other way round.

A thread that brings a stream into memory reads the disk first. Meanwhile another thread may do the same, put the
stream to sleep again, or delete it. So each thread claims the id before it reads: a claim becomes stale once a stream
of its id leaves memory or is deleted, and a stale snapshot is not entered.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from streamer.names import owner_of
from streamer.streams.session import Session

__all__ = ["Claim", "StreamTable"]


@dataclass(slots=True, eq=False)
class Claim:
    """A claim on an id: ``stale`` once a snapshot that was read from the disk may be out of date."""

    stale: bool = False


class StreamTable:
    """Thread-safe. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: dict[str, list[Claim]] = {}
        self._sessions: dict[str, Session] = {}
        self._away: dict[str, float] = {}  # detached streams: since when
        self._owners: Counter[str] = Counter()  # how many of each

    def get(self, id: str) -> Session | None:
        with self._lock:
            return self._sessions.get(id)

    def all(self) -> list[Session]:
        with self._lock:
            return list(self._sessions.values())

    def count(self, owner: str) -> int:
        """Number of the owner's streams in memory."""
        with self._lock:
            return self._owners[owner]

    def hotwords(self, model: str) -> set[tuple[str, ...]]:
        """The different lists that streams of a model have."""
        mine = (session.options.get("hotwords") for session in self.all() if session.model == model)
        return {tuple(words) for words in mine if words}

    def holds(self, session: Session) -> bool:
        return self.get(session.id) is session

    @contextmanager
    def claim(self, id: str) -> Iterator[Claim]:
        """Claim an id before reading the disk, until the stream is entered."""
        claim = Claim()
        with self._lock:
            self._claims.setdefault(id, []).append(claim)
        try:
            yield claim
        finally:
            with self._lock:
                self._claims[id].remove(claim)
                if not self._claims[id]:
                    del self._claims[id]

    def deleted(self, id: str) -> bool:
        """The stream was deleted from the disk: claims on it become stale. False if it is awake."""
        with self._lock:
            self._make_stale(id)
            return id not in self._sessions

    def _make_stale(self, id: str) -> None:
        for claim in self._claims.get(id, ()):
            claim.stale = True

    def enter(self, session: Session, now: float, claim: Claim | None = None) -> bool:
        """Add a session. False if there is another one of its id, or the claim is stale."""
        with self._lock:
            if claim is not None and claim.stale:
                return False
            before = len(self._sessions)
            mine = self._sessions.setdefault(session.id, session) is session
            self._owners[owner_of(session.id)] += len(self._sessions) - before
            if mine and session.sink is None:
                self._away[session.id] = now
            return mine

    def leave(self, session: Session) -> bool:
        """Remove a session. False if it was not there."""
        with self._lock:
            if self._sessions.get(session.id) is not session:
                return False
            del self._sessions[session.id]
            self._away.pop(session.id, None)
            self._owners[owner := owner_of(session.id)] -= 1
            if not self._owners[owner]:
                del self._owners[owner]
            self._make_stale(session.id)
            return True

    def went_away(self, session: Session, now: float) -> None:
        with self._lock:
            if self._sessions.get(session.id) is session:
                self._away[session.id] = now

    def note_away(self, now: float) -> None:
        """Note sessions that lost their client without a detach, since a sink failed."""
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
        """Sessions whose clients left at ``before`` or earlier, the longest away first."""
        with self._lock:
            found = sorted((since, id) for id, since in self._away.items() if since <= before)
            return [self._sessions[id] for _, id in found]

    def clear(self) -> None:
        with self._lock:
            self._sessions.clear()
            self._away.clear()
            self._owners.clear()
