"""State that survives a restart besides the snapshots: a secret, and the answered position of each sequence.

A snapshot has the number of rows that a sequence has taken. The sequence may resume silently only if its client got the
answers for exactly these rows: after a crash the snapshot may be older.
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

__all__ = ["MAX_SECRETS", "SECRET_BYTES", "Positions", "add_secrets", "lasting_secret", "other_secrets"]

log = logging.getLogger(__name__)

SECRET_BYTES = 32
#: Most secrets of other daemons whose sequences came here; beyond that the oldest is forgotten.
MAX_SECRETS = 8


class Positions:
    """A JSON file that is written when the daemon stops, and read and removed when it starts; after a crash there is
    none. Thread-safe.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = self._read()

    def take(self, key: str) -> int | None:
        """Remove and return the number of rows of a sequence that were answered in the last run."""
        with self._lock:
            return self._known.pop(key, None)

    def look(self, key: str) -> int | None:
        """As :meth:`take`, without removing it."""
        with self._lock:
            return self._known.get(key)

    def put(self, key: str, rows: int | None) -> None:
        """Note a sequence that came from another daemon, which has answered ``rows`` rows of it; ``None``: unknown. A
        crash of this daemon loses the number."""
        with self._lock:
            self._known.pop(key, None)
            if rows is not None:
                self._known[key] = rows

    def save(self, positions: Mapping[str, int]) -> None:
        """Write the positions, including those of the last run that were not taken. Waits for the disk."""
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
            log.error(f"clients will have to name their sequences' positions, {self._path} can't be written: {error}")

    def _read(self) -> dict[str, int]:
        try:
            found = json.loads(self._path.read_text())
            return {str(key): int(value) for key, value in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            log.warning(f"{self._path} can't be used, clients have to name their sequences' positions: {error}")
            return {}
        finally:
            self._remove()

    def _remove(self) -> None:
        """Remove the file durably: if it reappeared after a power loss, it could vouch for another sequence."""
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
    """A secret of 32 bytes that is created once. The file may hold :func:`other_secrets` behind it; a file of any other
    length is replaced. If the secret can't be stored, it is new on each start, and sequences do not survive a
    restart."""
    new = secrets.token_bytes(SECRET_BYTES)
    try:
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if found and not len(found) % SECRET_BYTES:
                return found[:SECRET_BYTES]
            log.warning(f"{path} is damaged and replaced, sequences of the last run can't go on")
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, new)
    except OSError as error:
        log.warning(f"{path} can't be used, sequences end with the daemon: {error}")
    return new


def other_secrets(path: Path) -> list[bytes]:
    """The secrets behind the daemon's own one in the file: of daemons whose sequences came here, the newest first."""
    try:
        found = path.read_bytes()
    except OSError:
        return []
    if len(found) % SECRET_BYTES:
        return []
    return [found[at : at + SECRET_BYTES] for at in range(SECRET_BYTES, len(found), SECRET_BYTES)]


def add_secrets(path: Path, own: bytes, others: list[bytes]) -> None:
    """Write the file of secrets. Waits for the disk."""
    try:
        _write(path, b"".join((own, *others)))
    except OSError as error:
        log.warning(f"{path} can't be written, sequences that came here end with this daemon: {error}")


def _write(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".tmp-secret")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
