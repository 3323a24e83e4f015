"""Snapshots in one SQLite file: one table. Without its old file the daemon starts without old streams."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from streamer.store.database import Database

__all__ = ["SqliteStore"]

VERSION = 1
TABLE = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    saved REAL NOT NULL,
    live INTEGER NOT NULL,
    data BLOB NOT NULL
)
"""


class SqliteStore:
    """``set_aside`` as of :class:`Database`. Raises :class:`StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database = Database(path, VERSION, TABLE, {"sessions": ("id", "saved", "live", "data")})
        self.set_aside = self._database.set_aside

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        now = time.time()
        with self._database.transaction() as db:
            db.executemany(
                "INSERT INTO sessions VALUES (?, ?, 1, ?) ON CONFLICT(id) DO UPDATE SET"
                " saved = excluded.saved, live = 1, data = excluded.data",
                ((id, now, data) for id, data in rows),
            )

    def get(self, id: str) -> bytes | None:
        with self._database.transaction() as db:
            row = db.execute("SELECT data FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else bytes(row[0])

    def live(self) -> Iterator[tuple[str, bytes]]:
        with self._database.transaction() as db:
            ids = [id for (id,) in db.execute("SELECT id FROM sessions WHERE live = 1 ORDER BY saved DESC")]
        for id in ids:  # one by one: all of them together may not fit in memory
            data = self.get(id)
            if data is not None:
                yield id, data

    def retire(self, ids: Iterable[str]) -> None:
        with self._database.transaction() as db:
            db.executemany("UPDATE sessions SET live = 0 WHERE id = ?", ((id,) for id in ids))

    def delete(self, ids: Iterable[str]) -> None:
        with self._database.transaction() as db:
            db.executemany("DELETE FROM sessions WHERE id = ?", ((id,) for id in ids))

    def purge(self, seconds: float) -> int:
        with self._database.transaction() as db:
            return db.execute("DELETE FROM sessions WHERE saved < ?", (time.time() - seconds,)).rowcount

    def close(self) -> None:
        self._database.close()
