"""Snapshots in one SQLite file. Without its old file the daemon starts without old streams.

The file has a clock of its own: the seconds for which a store was open on it. It stands still while nothing runs and
nobody can set it, so that a stream gets all of its time to come back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic

from streamer.store.database import Database

__all__ = ["SqliteStore"]

VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    saved REAL NOT NULL,
    live INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS clock (seconds REAL NOT NULL);
"""
COLUMNS = {"sessions": ("id", "saved", "live", "data"), "clock": ("seconds",)}
#: The clock is written when this share of a stream's time has passed since the last time.
GRAIN = 0.02


class SqliteStore:
    """``set_aside`` as of :class:`Database`; ``clock``: monotonic seconds. Raises :class:`StoreError`."""

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        self.path = path
        self._database = Database(path, VERSION, TABLES, COLUMNS)
        self.set_aside = self._database.set_aside
        self._clock, self._opened = clock, clock()
        with self._database.transaction() as db:
            row = db.execute("SELECT seconds FROM clock").fetchone()
            if row is None:  # new, or of a build that wrote the time of day into it
                db.execute("INSERT INTO clock VALUES (0)")
                db.execute("UPDATE sessions SET saved = 0")
        self._before = self._written = 0.0 if row is None else float(row[0])

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        with self._database.transaction() as db:
            now = self._tick(db)
            db.executemany(
                "INSERT INTO sessions VALUES (?, ?, 1, ?) ON CONFLICT(id) DO UPDATE SET"
                " saved = excluded.saved, live = 1, data = excluded.data",
                ((id, now, data) for id, data in rows),
            )

    def get(self, id: str) -> bytes | None:
        with self._database.transaction() as db:
            row = db.execute("SELECT data FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else bytes(row[0])

    def ids(self) -> list[str]:
        with self._database.transaction() as db:
            return [id for (id,) in db.execute("SELECT id FROM sessions ORDER BY id")]

    def live(self) -> Iterator[tuple[str, bytes]]:
        with self._database.transaction() as db:
            ids = [id for (id,) in db.execute("SELECT id FROM sessions WHERE live = 1 ORDER BY saved DESC")]
        for id in ids:  # one by one: all of them together may not fit in memory
            data = self.get(id)
            if data is not None:
                yield id, data

    def retire(self, ids: Iterable[str]) -> None:
        with self._database.transaction() as db:
            now = self._tick(db)
            db.executemany("UPDATE sessions SET live = 0, saved = ? WHERE id = ?", ((now, id) for id in ids))

    def delete(self, ids: Iterable[str]) -> None:
        with self._database.transaction() as db:
            db.executemany("DELETE FROM sessions WHERE id = ?", ((id,) for id in ids))

    def age(self, id: str) -> float | None:
        with self._database.transaction() as db:
            row = db.execute("SELECT saved FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else max(0.0, self._now() - float(row[0]))

    def purge(self, seconds: float) -> int:
        with self._database.transaction() as db:
            found = db.execute("DELETE FROM sessions WHERE live = 0 AND saved < ?", (self._now() - seconds,)).rowcount
            (asleep,) = db.execute("SELECT EXISTS (SELECT 1 FROM sessions WHERE live = 0)").fetchone()
            if asleep and self._now() - self._written > GRAIN * seconds:  # an idle daemon leaves the disk alone
                self._tick(db)
            return found

    def close(self) -> None:
        self._database.close()

    def _now(self) -> float:
        return self._before + self._clock() - self._opened

    def _tick(self, db: sqlite3.Connection) -> float:
        now = self._now()
        db.execute("UPDATE clock SET seconds = ?", (now,))
        self._written = now
        return now
