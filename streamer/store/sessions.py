"""Snapshots in one SQLite file, each with a checksum over it and its stream's id.

The file has a clock of its own: the seconds for which a store was open on it. It stops while no daemon runs and can't
be set, so that a client always has the full time to come back.
"""

from __future__ import annotations

import logging
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

from streamer.store import DamagedError, StoreError
from streamer.store.database import Database
from streamer.store.salvage import Loss, TableSpec, checksum

__all__ = ["SqliteStore"]

#: 2: every row has a checksum.
VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY,
    saved REAL NOT NULL,
    live INTEGER NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS clock (seconds REAL NOT NULL);
"""
#: The clock is written when this share of a stream's time has passed since the last time.
GRAIN = 0.02

log = logging.getLogger(__name__)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_session(row: tuple[Any, ...]) -> bool:
    id, saved, live, data, crc = row
    typed = isinstance(id, str) and isinstance(data, bytes) and _is_number(saved) and live in (0, 1)
    return typed and crc == checksum("sessions", id, data)


TABLES = (
    TableSpec("sessions", ("id", "saved", "live", "data", "crc"), _is_session, name=0, newer=1),
    TableSpec("clock", ("seconds",), lambda row: _is_number(row[0]) and row[0] >= 0, counted=False),
)


class SqliteStore:
    """``loss`` and ``set_aside`` as of :class:`Database`; ``clock``: monotonic seconds. Raises :class:`StoreError`."""

    def __init__(self, path: Path, clock: Callable[[], float] = monotonic) -> None:
        self.path = path
        self._database = Database(path, VERSION, SCHEMA, TABLES, _check_clock, _upgrade)
        self.set_aside = self._database.set_aside
        self._clock, self._opened = clock, clock()
        with self._database.transaction() as db:
            (seconds,) = db.execute("SELECT max(seconds) FROM clock").fetchone()
        self._before = self._written = float(seconds)

    @property
    def loss(self) -> Loss | None:
        return self._database.loss

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        with self._database.transaction() as db:
            now = self._tick(db)
            db.executemany(
                "INSERT INTO sessions VALUES (?, ?, 1, ?, ?) ON CONFLICT(id) DO UPDATE SET"
                " saved = excluded.saved, live = 1, data = excluded.data, crc = excluded.crc",
                ((id, now, data, checksum("sessions", id, data)) for id, data in rows),
            )

    def get(self, id: str) -> bytes | None:
        with self._database.transaction() as db:
            row = db.execute("SELECT data, crc FROM sessions WHERE id = ?", (id,)).fetchone()
        if row is None:
            return None
        data, crc = row
        if not isinstance(data, bytes) or crc != checksum("sessions", id, data):
            raise DamagedError(f"what is saved of the stream {id!r} in {self.path} is damaged (checksum)")
        return data

    def ids(self) -> list[str]:
        with self._database.transaction() as db:
            return [id for (id,) in db.execute("SELECT id FROM sessions ORDER BY id")]

    def live(self) -> Iterator[tuple[str, bytes]]:
        with self._database.transaction() as db:
            ids = [id for (id,) in db.execute("SELECT id FROM sessions WHERE live = 1 ORDER BY saved DESC")]
        for id in ids:  # one by one: all of them together may not fit in memory
            try:
                data = self.get(id)
            except DamagedError as error:  # the row was good when the file was opened: the disk is failing
                log.error(str(error))
                continue
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

    def look(self, least: int = 0) -> StoreError | None:
        """As :meth:`Database.look`."""
        return self._database.look(least)

    def close(self) -> None:
        self._database.close()

    def _now(self) -> float:
        return self._before + self._clock() - self._opened

    def _tick(self, db: sqlite3.Connection) -> float:
        now = self._now()
        db.execute("UPDATE clock SET seconds = ?", (now,))
        self._written = now
        return now


def _check_clock(db: sqlite3.Connection) -> None:
    """Start the clock of a new file, of one from a build that stored the time of day, and of one whose clock row was
    lost."""
    (seconds,) = db.execute("SELECT max(seconds) FROM clock").fetchone()
    (latest,) = db.execute("SELECT max(saved) FROM sessions").fetchone()
    if seconds is None:
        db.execute("INSERT INTO clock VALUES (?)", (latest or 0.0,))


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    if not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'clock'").fetchone():  # the time of day is in it
        db.execute("CREATE TABLE clock (seconds REAL NOT NULL)")
        db.execute("INSERT INTO clock VALUES (0)")
        db.execute("UPDATE sessions SET saved = 0")
    db.execute("ALTER TABLE sessions ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    for (id,) in db.execute("SELECT id FROM sessions").fetchall():
        (data,) = db.execute("SELECT data FROM sessions WHERE id = ?", (id,)).fetchone()
        if isinstance(data, bytes):
            db.execute("UPDATE sessions SET crc = ? WHERE id = ?", (checksum("sessions", id, data), id))
