"""Sensors on the disk: every stream's state as of some minutes ago, and the readings since then.

A reading is 24 bytes in the journal before it is acknowledged; the state of a stream is some ten thousand times that,
and is written at intervals. After a crash the readings after a stream's saved state are run again.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.store import StoreError
from streamer.store.database import Database, ForeignError
from streamer.store.salvage import TableSpec, checksum

__all__ = ["Change", "Journal", "Record", "Saved"]

log = logging.getLogger(__name__)

#: 2: every row of a stream has a checksum, and a record's covers its number.
VERSION = 2
SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    seq INTEGER NOT NULL,
    model TEXT NOT NULL,
    data BLOB NOT NULL,
    crc INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS variables (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    crc INTEGER NOT NULL
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
#: Ids and numbers of records above this were never assigned.
HIGHEST = 2**53
#: A sensor's id with its name: a new sensor. With ``None``: a deleted one.
Change = tuple[int, str | None]


class Record(NamedTuple):
    """Readings of one commit: ids of streams int64, unix seconds, values (NaN: missing), all [N]; for a model of rows
    the values are [N, C]. ``stamped`` bool [N]: the time is that of arrival."""

    seq: int
    ids: NDArray[np.int64]
    times: NDArray[np.float64]
    values: NDArray[np.float64]
    stamped: NDArray[np.bool_]

    def take(self, rows: NDArray[np.bool_]) -> Record:
        return Record(self.seq, self.ids[rows], self.times[rows], self.values[rows], self.stamped[rows])


class Saved(NamedTuple):
    """``seq``: the last record that is in the state; ``model``: the digest of the state's model file; ``data``: empty
    if no state was saved yet."""

    id: int
    name: str
    seq: int
    model: str
    data: bytes


class Journal:
    """Thread-safe; every method raises :class:`StoreError`. ``next_id`` and ``next_seq``: the first unused ones.

    ``variables``: names of a row's columns, empty if a reading is one value. A file with readings of other variables
    is moved aside, as a damaged one is."""

    def __init__(self, path: Path, variables: Sequence[str] = ()) -> None:
        # a negative id: the reading has the time of its arrival
        shape = (len(variables),) if variables else ()
        self._record = np.dtype([("id", "<i8"), ("time", "<f8"), ("value", "<f8", shape)])
        tables, check = _tables(self._record.itemsize), partial(_check, list(variables))
        self._database = Database(path, VERSION, SCHEMA, tables, check, _upgrade, partial(self._mend, variables))
        self.set_aside, self.loss = self._database.set_aside, self._database.loss
        self.damaged = 0
        with self._database.transaction() as db:
            # not the largest id there is: a stream that is gone may still have readings in the journal
            (last,) = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'streams'").fetchone()
            found = db.execute("SELECT max(seq) FROM journal UNION SELECT max(seq) FROM streams").fetchall()
        self.next_id = 1 + (last or 0)
        self.next_seq = 1 + max((seq for (seq,) in found if seq), default=0)

    def append(self, changes: Sequence[Change], records: Sequence[Record]) -> None:
        """Write new and deleted sensors, in this order, and readings: all of them durably, or nothing."""
        rows = []
        for record in records:
            packed = np.empty(len(record.ids), self._record)
            packed["id"] = np.where(record.stamped, -record.ids, record.ids)
            packed["time"], packed["value"] = record.times, record.values
            data = packed.tobytes()
            rows.append((record.seq, _record_sum(record.seq, data) + data))
        with self._database.transaction() as db:
            # one by one: a name may go and come back in one group
            for id, name in changes:
                if name is None:
                    db.execute("DELETE FROM streams WHERE id = ?", (id,))
                else:
                    db.execute("INSERT INTO streams VALUES (?, ?, ?, ?, ?, ?)", _new_stream(id, name))
            db.executemany("INSERT INTO journal VALUES (?, ?)", rows)

    def save(self, states: Sequence[Saved], done: int) -> None:
        """Write states of existing streams, and delete records up to ``done``, which are in the saved state of every
        stream. A state older than the saved one is left out: the records after it may be deleted already."""
        with self._database.transaction() as db:
            db.executemany(
                "UPDATE streams SET seq = ?, model = ?, data = ?, crc = ? WHERE id = ? AND name = ? AND seq <= ?",
                ((s.seq, s.model, s.data, checksum("streams", *s), s.id, s.name, s.seq) for s in states),
            )
            db.execute("DELETE FROM journal WHERE seq <= ?", (done,))

    def save_ages(self, ages: Sequence[tuple[int, float]]) -> None:
        """Write the seconds since each stream's last reading, by id."""
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
        """The records in order. A damaged one is skipped and counted in ``damaged``: its streams have a gap there."""
        seq = 0
        while True:
            with self._database.transaction() as db:
                row = db.execute("SELECT seq, data FROM journal WHERE seq > ? ORDER BY seq LIMIT 1", (seq,)).fetchone()
            if row is None:
                return
            seq, data = row
            if _record_sum(seq, data[4:]) != data[:4]:
                self.damaged += 1
                log.error("a record of the journal is damaged, its readings are lost", extra={"record": seq})
                continue
            packed = np.frombuffer(data, self._record, offset=4)
            ids = packed["id"].astype(np.int64)
            yield Record(seq, np.abs(ids), packed["time"].copy(), packed["value"].copy(), ids < 0)

    def look(self, least: int = 0) -> StoreError | None:
        """As :meth:`Database.look`."""
        return self._database.look(least)

    def close(self) -> None:
        self._database.close()

    def _mend(self, variables: Sequence[str], db: sqlite3.Connection) -> None:
        """Complete the tables after a salvage. A lost sensor may have readings in the journal, so its id is not
        reused."""
        if set(db.execute("SELECT number, name FROM variables")) <= set(enumerate(variables)):
            db.execute("DELETE FROM variables")
            db.executemany("INSERT INTO variables VALUES (?, ?, ?)", _variable_rows(variables))
        highest = 0
        for (data,) in db.execute("SELECT data FROM journal"):
            highest = max(highest, int(np.abs(np.frombuffer(data, self._record, offset=4)["id"]).max(initial=0)))
        for query in ("SELECT max(id) FROM ages", "SELECT max(seq) FROM sqlite_sequence"):
            highest = max(highest, db.execute(query).fetchone()[0] or 0)
        db.execute("DELETE FROM sqlite_sequence")
        db.execute("INSERT INTO sqlite_sequence VALUES ('streams', ?)", (min(highest, HIGHEST - 1),))


def _new_stream(id: int, name: str) -> tuple[Any, ...]:
    return id, name, 0, "", b"", checksum("streams", id, name, 0, "", b"")


def _variable_rows(variables: Sequence[str]) -> list[tuple[int, str, int]]:
    return [(number, name, checksum("variables", number, name)) for number, name in enumerate(variables)]


def _record_sum(seq: int, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(seq.to_bytes(8, "little"))).to_bytes(4, "little")


def _tables(itemsize: int) -> tuple[TableSpec, ...]:
    def is_number(value: Any, lowest: int = 1) -> bool:
        return isinstance(value, int) and lowest <= value < HIGHEST

    def is_stream(row: tuple[Any, ...]) -> bool:
        id, name, seq, model, data, crc = row
        typed = is_number(id) and is_number(seq, 0) and isinstance(name, str) and isinstance(model, str)
        return typed and name != "" and isinstance(data, bytes) and crc == checksum("streams", *row[:5])

    def is_record(row: tuple[Any, ...]) -> bool:
        seq, data = row
        if not is_number(seq) or not isinstance(data, bytes) or len(data) < 4 or (len(data) - 4) % itemsize:
            return False
        return data[:4] == _record_sum(seq, data[4:])

    def is_variable(row: tuple[Any, ...]) -> bool:
        return is_number(row[0], 0) and isinstance(row[1], str) and row[2] == checksum("variables", *row[:2])

    def is_age(row: tuple[Any, ...]) -> bool:
        return is_number(row[0]) and isinstance(row[1], (int, float)) and 0 <= row[1] < HIGHEST

    def is_sequence(row: tuple[Any, ...]) -> bool:
        return row[0] == "streams" and is_number(row[1], 0)

    return (
        TableSpec(
            "streams", ("id", "name", "seq", "model", "data", "crc"), is_stream, 0, 1, newer=2, replacement=_new_stream
        ),
        TableSpec("journal", ("seq", "data"), is_record, number=0, dense=True),
        TableSpec("variables", ("number", "name", "crc"), is_variable, number=0, counted=False),
        TableSpec("ages", ("id", "seconds"), is_age, number=0, counted=False),
        # SQLite's own: the highest id that a sensor ever had
        TableSpec("sqlite_sequence", ("name", "seq"), is_sequence, counted=False),
    )


def _check(variables: list[str], db: sqlite3.Connection) -> None:
    """Check the variables of the readings, and the counters of ids and records."""
    found = [name for (name,) in db.execute("SELECT name FROM variables ORDER BY number")]
    (used,) = db.execute("SELECT EXISTS (SELECT 1 FROM streams) OR EXISTS (SELECT 1 FROM journal)").fetchone()
    if used and found != variables:
        there, taken = (", ".join(names) or "single sensors" for names in (found, variables))
        raise ForeignError(f"its readings are of {there}, the model takes {taken}")
    if found != variables:
        db.execute("DELETE FROM variables")
        db.executemany("INSERT INTO variables VALUES (?, ?, ?)", _variable_rows(variables))
    rows = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'streams'").fetchall()
    (highest,) = db.execute("SELECT max(id) FROM streams").fetchone()
    lowest = highest or 0
    if len(rows) > 1 or (not rows and lowest) or (rows and not _is_last(rows[0][0], lowest)):
        raise sqlite3.DatabaseError("its count of sensors is damaged")


def _is_last(value: Any, lowest: int) -> bool:
    return isinstance(value, int) and lowest <= value < HIGHEST


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    db.execute("ALTER TABLE variables ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    for number, name in db.execute("SELECT number, name FROM variables").fetchall():
        db.execute("UPDATE variables SET crc = ? WHERE number = ?", (checksum("variables", number, name), number))
    db.execute("ALTER TABLE streams ADD COLUMN crc INTEGER NOT NULL DEFAULT 0")
    for (id,) in db.execute("SELECT id FROM streams").fetchall():
        row = db.execute("SELECT id, name, seq, model, data FROM streams WHERE id = ?", (id,)).fetchone()
        if isinstance(row[-1], bytes):
            db.execute("UPDATE streams SET crc = ? WHERE id = ?", (checksum("streams", *row), id))
    for (seq,) in db.execute("SELECT seq FROM journal").fetchall():
        (data,) = db.execute("SELECT data FROM journal WHERE seq = ?", (seq,)).fetchone()
        if isinstance(data, bytes) and zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little"):
            db.execute("UPDATE journal SET data = ? WHERE seq = ?", (_record_sum(seq, data[4:]) + data[4:], seq))
