"""Snapshots in one SQLite file: one table, write-ahead log, every commit on the disk before it is told of.

A file that is no database, is damaged, or comes from another version is moved aside and told of; the daemon starts
without old streams rather than not at all.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from streamer.store import StoreError

__all__ = ["SqliteStore"]

log = logging.getLogger(__name__)

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
    """``set_aside`` is the old file's new name if it could not be used, for the metrics. Raises :class:`StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = _connect(path)
            except sqlite3.OperationalError:
                raise  # locked, read-only, no space: nothing is wrong with what is in the file
            except sqlite3.DatabaseError as error:
                self.set_aside = _set_aside(path)
                extra = {"path": str(path), "kept_as": str(self.set_aside), "error": str(error)}
                log.error("the session store can't be used, starting with a new one", extra=extra)
                self._db = _connect(path)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"can't open the session store {path}: {error}") from error

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        now = time.time()
        with self._transaction() as db:
            db.executemany(
                "INSERT INTO sessions VALUES (?, ?, 1, ?) ON CONFLICT(id) DO UPDATE SET"
                " saved = excluded.saved, live = 1, data = excluded.data",
                ((id, now, data) for id, data in rows),
            )

    def get(self, id: str) -> bytes | None:
        with self._transaction() as db:
            row = db.execute("SELECT data FROM sessions WHERE id = ?", (id,)).fetchone()
        return None if row is None else bytes(row[0])

    def live(self) -> Iterator[tuple[str, bytes]]:
        with self._transaction() as db:
            ids = [id for (id,) in db.execute("SELECT id FROM sessions WHERE live = 1 ORDER BY saved DESC")]
        for id in ids:  # one by one: all of them together may not fit in memory
            data = self.get(id)
            if data is not None:
                yield id, data

    def retire(self, ids: Iterable[str]) -> None:
        with self._transaction() as db:
            db.executemany("UPDATE sessions SET live = 0 WHERE id = ?", ((id,) for id in ids))

    def delete(self, ids: Iterable[str]) -> None:
        with self._transaction() as db:
            db.executemany("DELETE FROM sessions WHERE id = ?", ((id,) for id in ids))

    def purge(self, seconds: float) -> int:
        with self._transaction() as db:
            return db.execute("DELETE FROM sessions WHERE saved < ?", (time.time() - seconds,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                with self._db:
                    self._db.execute("BEGIN")
                    yield self._db
            except sqlite3.Error as error:
                raise StoreError(f"the session store {self.path} failed: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    # isolation_level None: transactions are written out above, the module's own would begin them late
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it has version {version}, this build reads version {VERSION}")
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        db.execute(TABLE)
        columns = [name for _, name, *_ in db.execute("PRAGMA table_info(sessions)")]
        if columns != ["id", "saved", "live", "data"]:
            raise sqlite3.DatabaseError(f"its table has the columns {', '.join(columns)}")
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _set_aside(path: Path) -> Path:
    """The newest damaged file is kept; an older one makes room for it."""
    kept = path.with_name(path.name + ".damaged")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(kept.with_name(kept.name + suffix))
    return kept
