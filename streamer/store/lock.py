"""One daemon per state directory: a lock that the system releases when the process ends in any way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path

from streamer.store import StoreError
from streamer.store.database import store_error

__all__ = ["StateFolder", "StateLock"]


class StateLock:
    """Held from the start to :meth:`close`. Raises :class:`StoreError`, which names the holder's process id.

    It is an advisory lock (``flock``) on the file ``lock`` in the directory. The file stays, and holds the process id
    of its last holder; a killed process leaves no lock behind.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise store_error(f"can't lock the state directory {directory}", self.path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(OSError):  # the id is information for people; a full disk may have no room for it
                os.ftruncate(self._file, 0)
                os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._file, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StoreError(f"the state directory {directory} is in use by another daemon, process {holder}") from None
        except OSError as error:
            os.close(self._file)
            raise store_error(f"can't lock the state directory {directory}", self.path, error) from error

    def close(self) -> None:
        os.close(self._file)


class StateFolder:
    """The state directory. Its lock is taken as soon as possible: a full disk may have no room for the file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._lock: StateLock | None = None
        self._taking = threading.Lock()

    def claim(self) -> None:
        """Take the lock, if not yet taken; call it before each open of a file in the directory. Raises
        :class:`StoreError` as :class:`StateLock` does."""
        with self._taking:
            if self._lock is None:
                self._lock = StateLock(self.path)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
