"""A real file system of some hundred kilobytes, which can be filled and emptied."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SmallDisk", "small_disk"]


class SmallDisk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Fill the file system to the last byte."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def empty(self) -> None:
        """Remove the filler."""
        self._filler.unlink(missing_ok=True)

    @property
    def free(self) -> int:
        room = os.statvfs(self.path)
        return room.f_bavail * room.f_frsize


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 4) -> Iterator[SmallDisk]:
    """A tmpfs. Raises ``PermissionError`` if the process may not mount one."""
    path = folder / "small"
    path.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "streamer-test", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        raise PermissionError("no file system may be mounted here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
