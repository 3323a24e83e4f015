"""Copies the readable rows of a damaged store into a new one; lost rows are counted, and named where possible."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.store.pages import PageRow, PageSet

__all__ = ["Loss", "TableSpec", "checksum", "salvage"]

Values = tuple[Any, ...]


@dataclass(frozen=True)
class TableSpec:
    """A table of a database, with a test that tells its rows from damage.

    ``good``: the types of a row are right, and so is its checksum, where it has one. ``number``: the column that is the
    row's number, which SQLite keeps outside of the record, else -1. ``name``: the column that names a row for people,
    and is indexed, else -1. ``newer``: of two rows with the same key the one with the higher value in this column
    counts. ``counted``: lost rows are reported; ``dense``: its numbers are consecutive, so that a gap is a loss.
    """

    title: str
    columns: tuple[str, ...]
    good: Callable[[Values], bool]
    number: int = -1
    name: int = -1
    newer: int = 0
    counted: bool = True
    dense: bool = False
    replacement: Callable[[int, str], Values] | None = None


@dataclass
class Loss:
    """The loss from a damaged file: ``kept_as`` its new name, ``why`` it could not be used, the numbers of kept rows by
    table, and of rows known to be lost, some of them by name. Rows on the unreadable ``pages`` are not counted."""

    kept_as: Path
    why: str
    kept: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    pages: int = 0

    def counts(self) -> tuple[int, int]:
        """Numbers of kept rows and of lost rows."""
        return sum(self.kept.values()), sum(self.lost.values())


def checksum(*parts: str | int | bytes) -> int:
    """The checksum over all parts and their lengths."""
    found = 0
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        found = zlib.crc32(data, zlib.crc32(len(data).to_bytes(8, "little"), found))
    return found


def salvage(path: Path, tables: Sequence[TableSpec], into: sqlite3.Connection, loss: Loss) -> None:
    """Copy every good row of the files at ``path``, which do not change, ``into`` a new database; ``loss`` gets the
    counts. Raises ``sqlite3.Error`` where rows can't be written."""
    pages = PageSet(path)
    taken: dict[str, dict[Any, Any]] = {table.title: {} for table in tables}
    broken: dict[str, dict[str, int]] = {table.title: {} for table in tables}
    nameless = dict.fromkeys(taken, 0)
    for row in pages.rows():
        table, values = _table_of(row, tables)
        if table is None:
            guess = next((t for t in tables if t.counted and len(t.columns) == row.width), None)
            if guess is not None and 0 <= guess.name < len(row.values) and isinstance(row.values[guess.name], str):
                broken[guess.title][row.values[guess.name]] = row.rowid
            elif guess is not None:
                nameless[guess.title] += 1
            continue
        mine, key = taken[table.title], values[max(table.name, table.number, 0)]
        if key in mine and mine[key] >= values[table.newer]:
            continue
        mine[key] = values[table.newer]
        into.execute(f"INSERT OR REPLACE INTO {table.title} VALUES ({', '.join('?' * len(values))})", values)
    indexed = {entry[0]: entry[1] for entry in pages.entries() if len(entry) == 2 and isinstance(entry[0], str)}
    loss.pages = pages.unreadable()
    for table in tables:
        if not table.counted:
            continue
        mine = taken[table.title]
        missing = (broken[table.title].keys() | (indexed.keys() if table.name >= 0 else set())) - mine.keys()
        for name, rowid in broken[table.title].items():
            if table.replacement is not None and name in missing and indexed.get(name) == rowid:
                values = table.replacement(rowid, name)
                if table.good(values):
                    into.execute(f"INSERT OR IGNORE INTO {table.title} VALUES ({', '.join('?' * len(values))})", values)
        gaps = max(mine) - min(mine) + 1 - len(mine) if table.dense and mine else 0
        count = len(missing) + max(gaps, nameless[table.title])
        loss.kept[table.title] = len(mine)
        loss.lost[table.title] = count
        loss.names += sorted(missing)


def _table_of(row: PageRow, tables: Sequence[TableSpec]) -> tuple[TableSpec | None, Values]:
    for table in tables:
        if len(row.values) == len(table.columns) == row.width and (
            table.number < 0 or row.values[table.number] is None
        ):
            values = tuple(row.rowid if i == table.number else value for i, value in enumerate(row.values))
            if table.good(values):
                return table, values
    return None, ()
