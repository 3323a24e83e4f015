"""One SQLite file: write-ahead log, every commit is on the disk before it returns.

Each open checks the whole file: its pages, its log, and every row's checksum. If the file is damaged, or was written by
another version, all readable rows are copied into a new file; the old file is kept beside it, and the loss is logged.
So the daemon starts with the readable rows rather than not at all.
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

#: Results of SQLite, by the last byte, that say nothing about the file's content: permission, busy, locked, memory,
#: read-only, interrupted, full, can't open, authorization. Those outside of PASSING last until an operator acts.
OUTSIDE = frozenset({3, 5, 6, 7, 8, 9, 13, 14, 23})
PASSING = frozenset({5, 6, 7, 13})
IOERR = 10
#: Read errors (extended codes): a bad sector is damage. Other I/O errors mean that the disk can't be written.
UNREADABLE = frozenset({266, 522, 8202, 8458})
#: System errors of a disk that may recover by itself.
PASSING_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENXIO})
#: Names of lost rows in a log line, at most.
NAMES = 20
#: The log is written back into the file once it has so many pages of 4 KiB. SQLite's own 1000 are 4 MiB for each of two
#: stores, which a small state partition may not have.
LOG_PAGES = 256


class ForeignError(sqlite3.DatabaseError):
    """The file is intact, but its content can't be used here: it is moved aside unchanged."""


class Database:
    """``schema`` makes ``tables``; ``version``: of both. ``upgrade`` converts a file of an earlier version.

    ``check`` validates the content as a whole; it raises :class:`ForeignError` where the content can't be used, and
    ``sqlite3.DatabaseError`` where it is damaged. ``mend`` completes a database after a salvage. ``set_aside`` is the
    old file's new name if it could not be used, ``loss`` counts its kept and lost rows. ``trouble``: why nothing can
    be written, as far as is known. Raises :class:`StoreError`.
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
            if _file_of(self.path) != self._file:  # SQLite would continue to write to the deleted file
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
        """Why nothing can be written, or fewer than ``least`` bytes are free; ``None``: all is well. After a failure it
        tries a write that changes nothing; before that it shortens the log to the room that it needs."""
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
                raise sqlite3.DatabaseError("it has triggers or views, which this daemon never makes")
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

    # -- rebuilding ----------------------------------------------------------------------------------------------------

    def _rebuild(self, loss: Loss | None, *, rows: bool = True) -> None:
        """Write a new file beside the old ones, then replace them: after an interruption at any time the old rows are
        still there."""
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
        """Finish an interrupted rebuild: if the new file is complete and the old one was moved, put it into place."""
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
    """A :class:`StoreError` for ``error`` of the file at ``path``, with advice what to do."""
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
    """The reason, if fewer than ``least`` bytes are free in the folder."""
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
    """Whether another process, such as a backup, has locked the file for the moment."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (5, 6)


def _damage_of(path: Path) -> str | None:
    """The damage that SQLite does not report."""
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
