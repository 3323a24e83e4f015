"""A file that others write to, read on as it grows: what ``tail -F`` does."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

__all__ = ["FollowedFile"]


class FollowedFile(io.RawIOBase):
    """At the end of the file a read waits for more bytes, until :meth:`stop` is called. A file that was replaced, or
    became shorter, is read again from its start; a read waits for a file that is gone. ``every``: seconds between two
    looks. Raises ``OSError`` if the file can't be opened at first."""

    def __init__(self, path: Path, every: float = 0.25) -> None:
        self._path, self._every = path, every
        self._file = path.open("rb", buffering=0)
        self._stopped = threading.Event()
        self._cut = False  # what was read ends within a line

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def stop(self) -> None:
        """Make reads return the end of the file. From any thread."""
        self._stopped.set()

    def readinto(self, buffer: Any) -> int:
        while not (read := self._file.readinto(buffer) or 0):
            if self._stopped.is_set():
                return 0
            if not self._turned():
                self._stopped.wait(self._every)
            elif self._cut:
                buffer[:1] = b"\n"  # a line that was cut off must not become one with the first of what follows
                read = 1
                break
        self._cut = buffer[read - 1] != 0x0A
        return read

    def _turned(self) -> bool:
        """Whether there is something new to read from the start: another file in its place, or less of it."""
        try:
            there, own = self._path.stat(), os.fstat(self._file.fileno())
            # bytes written since the last read come first, even if the file was replaced
            if own.st_size > self._file.tell():
                return False
            if (there.st_dev, there.st_ino) != (own.st_dev, own.st_ino):
                new = self._path.open("rb", buffering=0)
                self._file.close()
                self._file = new
                return True
        except OSError:  # the file is gone, for the moment
            return False
        if own.st_size < self._file.tell():
            self._file.seek(0)
            return True
        return False

    def close(self) -> None:
        self.stop()
        self._file.close()
        super().close()
