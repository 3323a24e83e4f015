"""One SQLite file: write-ahead log, every commit is on the disk before it returns.

A file that is not a database, is damaged, or comes from another version is moved aside, which is logged. The daemon
starts with a new one rather than not at all.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from streamer.store import StoreError

__all__ = ["Database"]

log = logging.getLogger(__name__)


class Database:
    """``tables``: their columns by name, as they must be found; ``schema``: what makes them; ``version``: of both.

    ``check`` looks at what is in it, and raises ``sqlite3.DatabaseError`` where that is of no use.
    ``set_aside`` is the old file's new name if it could not be used, for the metrics. Raises :class:`StoreError`.
    """

    def __init__(
        self,
        path: Path,
        version: int,
        schema: str,
        tables: Mapping[str, Sequence[str]],
        check: Callable[[sqlite3.Connection], None] = lambda db: None,
    ) -> None:
        self.path = path
        self.set_aside: Path | None = None
        self._version, self._schema, self._tables, self._check = version, schema, tables, check
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._db = self._connect()
            except sqlite3.OperationalError:
                raise  # locked, read-only, no space: nothing is wrong with what is in the file
            except sqlite3.DatabaseError as error:
                self.set_aside = _set_aside(path)
                extra = {"path": str(path), "kept_as": str(self.set_aside), "error": str(error)}
                log.error("the store can't be used, starting with a new one", extra=extra)
                self._db = self._connect()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"can't open the store {path}: {error}") from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Committed at the end, rolled back on any exception. Thread-safe. Raises :class:`StoreError`."""
        with self._lock:
            try:
                with self._db:
                    self._db.execute("BEGIN")
                    yield self._db
            except sqlite3.Error as error:
                raise StoreError(f"the store {self.path} failed: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _connect(self) -> sqlite3.Connection:
        # isolation_level None: transactions are written out above, the module's own would begin them late
        db = sqlite3.connect(self.path, timeout=5, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version not in (0, self._version):
                raise sqlite3.DatabaseError(f"it has version {version}, this build reads version {self._version}")
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.executescript(self._schema)
            for table, wanted in self._tables.items():
                columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
                if columns != list(wanted):
                    raise sqlite3.DatabaseError(f"its table {table} has the columns {', '.join(columns)}")
            self._check(db)
            db.execute(f"PRAGMA user_version = {self._version}")
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
