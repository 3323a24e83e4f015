"""What outlives the daemon beside the snapshots: a secret, and up to which row each sequence was answered.

A snapshot says which rows a sequence has taken. Only if those are the rows that its client was answered for may it go
on without a word: after a crash the snapshot may be older.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Positions", "lasting_secret"]

log = logging.getLogger(__name__)

SECRET_BYTES = 32


class Positions:
    """One JSON file, written when the daemon goes down, read and removed when it starts: after a crash there is none.
    Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = self._read()

    def take(self, key: str) -> int | None:
        """Rows answered in the last run, once."""
        with self._lock:
            return self._known.pop(key, None)

    def save(self, positions: Mapping[str, int]) -> None:
        """Those of the last run that nobody has asked for are kept too. Waits for the disk."""
        with self._lock:
            whole = {**self._known, **positions}
        if not whole:
            return
        draft = self._path.with_suffix(".tmp")
        try:
            with draft.open("w") as file:
                json.dump(whole, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path)
        except OSError as error:
            log.error(f"sequences will have to say where they go on, {self._path} can't be written: {error}")

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
            return {str(key): int(value) for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            log.warning(f"{self._path} can't be used, sequences have to say where they go on: {error}")
            return {}
        finally:
            self._remove()

    def _remove(self) -> None:
        """For good: should it come back after a loss of power, it would speak for another sequence."""
        try:
            self._path.unlink(missing_ok=True)
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            log.warning(f"{self._path} can't be removed: {error}")


def lasting_secret(path: Path) -> bytes:
    """32 bytes, made once; a file of another length is replaced. Where they can't be kept, new ones: then sequences end
    with the daemon."""
    new = secrets.token_bytes(SECRET_BYTES)
    draft = path.with_suffix(".tmp-secret")
    try:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) == SECRET_BYTES:
                return found
            log.warning(f"{path} is damaged and replaced, sequences of the last run can't go on")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        log.warning(f"{path} can't be used, sequences end with the daemon: {error}")
    return new
