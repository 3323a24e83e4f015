"""Sensors on the disk: every stream's state as it was some minutes ago, and the readings that came since.

A reading is 24 bytes in the journal before it is acknowledged; the state of a stream is some ten thousand times that,
and is written now and then. After a crash the readings behind a stream's state are run again.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.store.database import Database

__all__ = ["Change", "Journal", "Record", "Saved"]

log = logging.getLogger(__name__)

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    model TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS variables (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS ages (
    id INTEGER PRIMARY KEY,
    seconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS journal (
    seq INTEGER PRIMARY KEY,
    data BLOB NOT NULL
);
"""
TABLES = {
    "streams": ("id", "name", "seq", "model", "data"),
    "variables": ("number", "name"),
    "ages": ("id", "seconds"),
    "journal": ("seq", "data"),
}
#: A sensor's id with its name: it is new. With ``None``: it is gone.
Change = tuple[int, str | None]


class Record(NamedTuple):
    """Readings that were taken together: ids of streams int64, unix seconds, values (NaN: missing), all [N]; of rows
    the values are [N, C]. ``stamped`` bool [N]: the time is that of arrival."""

    seq: int
    ids: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    stamped: NDArray[np.bool_]

    def take(self, rows: NDArray[np.bool_]) -> Record:
        return Record(self.seq, self.ids[rows], self.times[rows], self.values[rows], self.stamped[rows])


class Saved(NamedTuple):
    """``seq``: the last record that is in the state; ``model``: the digest of the file that it belongs to; ``data``:
    empty where nothing was saved yet."""

    id: int
    name: str
    seq: int
    model: str
    data: bytes


class Journal:
    """Thread-safe; every method raises :class:`StoreError`. ``next_id`` and ``next_seq``: what was never used.

    ``variables``: of rows, none where a reading is one value. A file with readings of other variables is moved aside,
    as a damaged one is."""

    def __init__(self, path: Path, variables: Sequence[str] = ()) -> None:
        # a negative id: the reading has the time of its arrival
        shape = (len(variables),) if variables else ()
        self._record = np.dtype([("id", "<i8"), ("time", "<f8"), ("value", "<f8", shape)])
        self._database = Database(path, VERSION, SCHEMA, TABLES, partial(_check_variables, list(variables)))
        self.set_aside = self._database.set_aside
        self.damaged = 0
        with self._database.transaction() as db:
            # not the largest id there is: a stream that is gone may still have readings in the journal
            (last,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'streams'").fetchone()
            found = db.execute("SELECT max(seq) FROM journal UNION SELECT max(seq) FROM streams").fetchall()
        self.next_id = 1 + (last or 0)
        self.next_seq = 1 + max((seq for (seq,) in found if seq), default=0)

    def append(self, changes: Sequence[Change], records: Sequence[Record]) -> None:
        """Sensors that come and go, in this order, and readings: all of it, durably, or nothing."""
        rows = []
        for record in records:
            packed = np.empty(len(record.ids), self._record)
            packed["id"] = np.where(record.stamped, -record.ids, record.ids)
            packed["time"], packed["value"] = record.times, record.values
            data = packed.tobytes()
            rows.append((record.seq, zlib.crc32(data).to_bytes(4, "little") + data))
        with self._database.transaction() as db:
            # one by one: a name may go and come back in one group
            for id, name in changes:
                if name is None:
                    db.execute("DELETE FROM streams WHERE id = ?", (id,))
                else:
                    db.execute("INSERT INTO streams VALUES (?, ?, 0, '', x'')", (id, name))
            db.executemany("INSERT INTO journal VALUES (?, ?)", rows)

    def save(self, states: Sequence[Saved], done: int) -> None:
        """States of streams that are there; records up to ``done`` are in what is saved of every stream. A state that
        is older than the saved one is left out: the records behind it may be gone already."""
        with self._database.transaction() as db:
            db.executemany(
                "UPDATE streams SET seq = ?, model = ?, data = ? WHERE id = ? AND seq <= ?",
                ((saved.seq, saved.model, saved.data, saved.id, saved.seq) for saved in states),
            )
            db.execute("DELETE FROM journal WHERE seq <= ?", (done,))

    def save_ages(self, ages: Sequence[tuple[int, float]]) -> None:
        """Of every stream by id: for how many seconds it has been silent."""
        with self._database.transaction() as db:
            db.execute("DELETE FROM ages")
            db.executemany("INSERT INTO ages VALUES (?, ?)", ages)

    def ages(self) -> dict[int, float]:
        with self._database.transaction() as db:
            return dict(db.execute("SELECT id, seconds FROM ages").fetchall())

    def streams(self) -> Iterator[Saved]:
        with self._database.transaction() as db:
            ids = [id for (id,) in db.execute("SELECT id FROM streams ORDER BY id")]
        for id in ids:  # one by one: all of them together may not fit in memory
            with self._database.transaction() as db:
                row = db.execute("SELECT id, name, seq, model, data FROM streams WHERE id = ?", (id,)).fetchone()
            if row is not None:
                yield Saved(*row)

    def records(self) -> Iterator[Record]:
        """In order. A damaged one is passed over and counted in ``damaged``: to its streams it is a gap."""
        seq = 0
        while True:
            with self._database.transaction() as db:
                row = db.execute("SELECT seq, data FROM journal WHERE seq > ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
            if row is None:
                return
            seq, data = row
            if zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
                self.damaged += 1
                log.error("a record of the journal is damaged, its readings are lost", extra={"record": seq})
                continue
            packed = np.frombuffer(data, self._record, offset=4)
            ids = packed["id"].astype(np.int64)
            yield Record(seq, np.abs(ids), packed["time"].copy(), packed["value"].copy(), ids < 0)

    def close(self) -> None:
        self._database.close()


def _check_variables(variables: list[str], db: sqlite3.Connection) -> None:
    found = [name for (name,) in db.execute("SELECT name FROM variables ORDER BY number")]
    (used,) = db.execute("SELECT EXISTS (SELECT 1 FROM streams) OR EXISTS (SELECT 1 FROM journal)").fetchone()
    if used and found != variables:
        there, taken = (", ".join(names) or "single sensors" for names in (found, variables))
        raise sqlite3.DatabaseError(f"its readings are of {there}, the model takes {taken}")
    if found != variables:
        db.execute("DELETE FROM variables")
        db.executemany("INSERT INTO variables VALUES (?, ?)", enumerate(variables))
