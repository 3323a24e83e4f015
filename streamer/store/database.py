"""One SQLite file: write-ahead log, every commit is on the disk before it returns.

Before it is used it is looked at whole: its pages, its log, and every row's checksum. Of a file that is damaged, or was
written by another version, all rows that can be read go into a new one; the old one is kept beside it, and what was
lost is said. The daemon starts with what there is rather than not at all.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from streamer.store import StoreError
from streamer.store.pages import log_of, promised_frames
from streamer.store.salvage import Loss, TableSpec, salvage

__all__ = ["Database", "ForeignError", "no_room", "store_error"]

log = logging.getLogger(__name__)

#: Results of SQLite, by the last byte, that say nothing about what is in the file: permission, busy, locked, memory,
#: read-only, interrupted, full, can't open, authorization. All but those in PASSING stay until somebody does something.
OUTSIDE = frozenset({3, 5, 6, 7, 8, 9, 13, 14, 23})
PASSING = frozenset({5, 6, 7, 13})
IOERR = 10
#: Errors of reading (extended): a bad sector is damage. All others are of a disk that can't be written.
UNREADABLE = frozenset({266, 522, 8202, 8458})
#: What the system says of a disk that may be better later.
PASSING_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO})
#: Names of what was lost that a log line holds.
NAMES = 20
#: The log is written back into the file once it has so many pages of 4 KiB. SQLite's own 1000 are 4 MiB for each of two
#: stores, which a small state partition may not have.
LOG_PAGES = 256


class ForeignError(sqlite3.DatabaseError):
    """Nothing is wrong with the file, but what is in it is of no use here: it is moved aside as it is."""


class Database:
    """``schema`` makes ``tables``; ``version``: of both. ``upgrade`` takes a file of an earlier version on.

    ``check`` looks at what is in it as a whole, and raises :class:`ForeignError` where that is of no use,
    ``sqlite3.DatabaseError`` where it is damaged; ``mend`` completes what a salvage has brought. ``set_aside`` is the
    old file's new name if it could not be used, ``loss`` what became of its rows. ``trouble``: why nothing can be
    written, as far as is known. Raises :class:`StoreError`.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        schema: str,
        tables: Sequence[TableSpec],
        check: Callable[[sqlite3.Connection], None] = lambda db: None,
        upgrade: Callable[[sqlite3.Connection, int], None] | None = None,
        mend: Callable[[sqlite3.Connection], None] = lambda db: None,
    ) -> None:
        self.path = path
        self.loss: Loss | None = None
        self.trouble: StoreError | None = None
        self._version, self._schema, self._tables = version, schema, tables
        self._check, self._upgrade, self._mend = check, upgrade, mend
        self._lock = threading.Lock()
        self._new = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
            self._file = _file_of(path)
        except (sqlite3.Error, OSError) as error:
            raise store_error(f"can't open the store {path}", path, error) from error

    @property
    def set_aside(self) -> Path | None:
        return None if self.loss is None else self.loss.kept_as

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Committed at the end, rolled back on any exception. Thread-safe. Raises :class:`StoreError`."""
        with self._lock:
            if _file_of(self.path) != self._file:  # SQLite would go on writing to what nobody will ever read
                self.trouble = StoreError(f"the store {self.path} was deleted or replaced while it was in use")
                raise self.trouble
            try:
                before = self._db.total_changes
                with self._db:
                    self._db.execute("BEGIN")
                    yield self._db
            except sqlite3.Error as error:
                failed = store_error(f"the store {self.path} failed", self.path, error)
                if type(error) is sqlite3.DatabaseError or (_is_outside(error) and not _is_held(error)):
                    self.trouble = failed
                raise failed from error
            if self._db.total_changes != before:
                self.trouble = None

    def look(self, least: int = 0) -> StoreError | None:
        """Why nothing can be written, or soon can't: fewer than ``least`` bytes are free. What failed is tried again,
        by a write that changes nothing; before that the log gives back the room that it can do without."""
        if self.trouble is not None:
            with contextlib.suppress(sqlite3.Error), self._lock:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with contextlib.suppress(StoreError):
            if self.trouble is not None or _file_of(self.path) != self._file:
                with self.transaction() as db:
                    db.execute(f"PRAGMA user_version = {self._version}")
                self.trouble = None
        return self.trouble or no_room(self.path.parent, least)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        self._finish_rebuilding()
        why = _damage_of(self.path)
        if why is None:
            if not self.path.exists():
                self._rebuild(None)
            try:
                return self._connect()
            except ForeignError as error:
                self._rebuild(Loss(_kept(self.path), str(error)), rows=False)
                return self._connect()
            except (sqlite3.Error, ValueError, OverflowError) as error:
                if _is_outside(error):
                    raise
                why = str(error) or type(error).__name__
        self._rebuild(Loss(_kept(self.path), why))
        try:
            return self._connect()
        except ForeignError as error:
            self._rebuild(Loss(_kept(self.path), f"{why}; {error}"), rows=False)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: transactions are written out above, the module's own would begin them late
        db = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if not 0 < version <= self._version:
                raise sqlite3.DatabaseError(f"it has version {version}, this build reads version {self._version}")
            (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            if db.execute("SELECT 1 FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone():
                raise sqlite3.DatabaseError("there are triggers or views in it, which nobody here has made")
            if version < self._version and self._upgrade is not None:
                with db:
                    db.execute("BEGIN")
                    self._upgrade(db, version)
                    db.execute(f"PRAGMA user_version = {self._version}")
            for table in self._tables:
                self._look_at(db, table)
            with db:
                db.execute("BEGIN")
                self._check(db)
        except BaseException:
            db.close()
            raise
        return db

    def _look_at(self, db: sqlite3.Connection, table: TableSpec) -> None:
        columns = tuple(name for _, name, *_ in db.execute(f"PRAGMA table_info({table.title})"))
        if columns != table.columns:
            raise sqlite3.DatabaseError(f"its table {table.title} has the columns {', '.join(columns)}")
        for row in db.execute(f"SELECT {', '.join(columns)} FROM {table.title}"):
            if not table.good(row):
                name = f" ({row[table.name]!r})" if table.name >= 0 else ""
                raise sqlite3.DatabaseError(f"a row of its table {table.title}{name} is damaged")

    # -- making it anew ------------------------------------------------------------------------------------------------

    def _rebuild(self, loss: Loss | None, *, rows: bool = True) -> None:
        """Beside the old files, then in their place: whatever ends this in between, what there was is still there."""
        _remove(self._new)
        db = sqlite3.connect(self._new, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = FULL")
            with db:
                db.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, self._schema.split(";")):
                    db.execute(statement)
                if loss is not None and rows:
                    salvage(self.path, self._tables, db, loss)
                    self._mend(db)
                db.execute(f"PRAGMA user_version = {self._version}")
        finally:
            db.close()
        self._put_in_place()
        if loss is not None:
            self.loss = loss
            lost = sum(loss.lost.values())
            extra: dict[str, object] = {
                "path": str(self.path),
                "kept_as": str(loss.kept_as),
                "error": loss.why,
                "rows_kept": loss.kept,
            }
            extra |= {"rows_lost": loss.lost, "names_lost": loss.names[:NAMES], "pages_lost": loss.pages}
            said = f"{lost} rows of it are lost" if lost else "no row is known to be lost, what was written last may be"
            said += f", and what was on {loss.pages} pages" if loss.pages else ""
            log.error(f"the store can't be used as it is, and is rebuilt: {said}", extra=extra)

    def _put_in_place(self) -> None:
        _set_aside(self.path)
        self._new.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _finish_rebuilding(self) -> None:
        """After an end in the middle: a new file that is whole, and nothing in its place, goes there."""
        try:
            head = self._new.read_bytes()[:100]
        except OSError:
            return
        whole = len(head) == 100 and int.from_bytes(head[60:64], "big") == self._version
        if whole and not self.path.exists() and not self._new.with_name(self._new.name + "-journal").exists():
            log.warning("a store that was being rebuilt is finished", extra={"path": str(self.path)})
            self._put_in_place()
        else:
            _remove(self._new)


def store_error(what: str, path: Path, error: Exception) -> StoreError:
    """``error`` of the file at ``path``, said with what may be done about it."""
    code = getattr(error, "sqlite_errorcode", None)
    number = error.errno if isinstance(error, OSError) else None
    full = number in (errno.ENOSPC, errno.EDQUOT) or (code is not None and code & 0xFF == 13)
    passing = number in PASSING_ERRNOS or (code is not None and code & 0xFF in PASSING)
    with contextlib.suppress(OSError):
        room = os.statvfs(path.parent if path.parent.exists() else path.parent.parent)
        outside = code is not None and (code & 0xFF in OUTSIDE or (code & 0xFF == IOERR and code not in UNREADABLE))
        full = full or (outside and room.f_bavail == 0)
        passing = passing or (outside and bool(room.f_flag & os.ST_RDONLY))
    passing = passing or (code is not None and code & 0xFF == IOERR)
    advice = ": the disk is full, make room on it" if full else ""
    return StoreError(f"{what}: {error}{advice}", passing=passing, full=full)


def no_room(folder: Path, least: int) -> StoreError | None:
    """Where fewer than ``least`` bytes are free there."""
    try:
        room = os.statvfs(folder)
    except OSError as error:
        return StoreError(f"the state directory {folder} can't be looked at: {error.strerror}", passing=True)
    if (free := room.f_bavail * room.f_frsize) >= least:
        return None
    return StoreError(f"{free} bytes are free in {folder}, {least} are wanted (min_free_bytes): make room", full=True)


def _file_of(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _is_outside(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return False
    return code & 0xFF in OUTSIDE or (code & 0xFF == IOERR and code not in UNREADABLE)


def _is_held(error: Exception) -> bool:
    """Somebody has a lock on the file for the moment, such as a backup."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 6)


def _damage_of(path: Path) -> str | None:
    """Of what SQLite would not say a word."""
    wal = path.with_name(path.name + "-wal")
    found, promised = log_of(wal), promised_frames(wal)
    if not path.exists():
        return "the file is gone, its write-ahead log is there" if found is not None and found.pages else None
    if path.stat().st_size == 0:
        return "the file is empty"
    expected = max(promised, len(found.pages) if found is not None else 0)
    if found is None:
        return f"its write-ahead log is gone, {promised} pages were in it" if promised else None
    if found.headless and expected:
        return "the head of its write-ahead log is damaged"
    if found.readable < expected:
        return f"its write-ahead log is damaged: {found.readable} of {expected} pages in it can be read in order"
    return None


def _kept(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def _set_aside(path: Path) -> None:
    """The newest damaged file is kept; an older one makes room for it."""
    kept = _kept(path)
    if path.exists():
        _remove(kept)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(kept.with_name(kept.name + suffix))


def _remove(path: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
