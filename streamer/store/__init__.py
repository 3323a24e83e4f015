"""Where sleeping streams lie. A store keeps bytes by stream id and knows nothing of what is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

__all__ = ["DamagedError", "Store", "StoreError"]


class StoreError(OSError):
    """The store could not do it; what it was asked to keep is not safe.

    ``passing``: it may go better by itself later: the disk is full, gone, read-only or slow. ``full``: there is no
    space."""

    def __init__(self, message: str, *, passing: bool = False, full: bool = False) -> None:
        super().__init__(message)
        self.passing, self.full = passing or full, full


class DamagedError(StoreError):
    """What was kept is there, and is not what was kept."""


class Store(Protocol):
    """Thread-safe. Every method raises :class:`StoreError`.

    Ages are seconds while a store was open: no clock that is set, and no machine that was off, makes a stream older.
    """

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Write all of them, durably, or none; they are live from then on."""

    def get(self, id: str) -> bytes | None: ...

    def ids(self) -> list[str]:
        """All that are there, in order."""

    def live(self) -> Iterator[tuple[str, bytes]]:
        """Those that were not retired: what a start brings back."""

    def retire(self, ids: Iterable[str]) -> None:
        """Keep them for a client that comes back late; a start passes them over. From here on they age."""

    def delete(self, ids: Iterable[str]) -> None: ...

    def age(self, id: str) -> float | None:
        """Since it was written or retired; ``None`` if it is not there."""

    def purge(self, seconds: float) -> int:
        """Forget those that were retired longer ago than that; how many. Live ones stay, however old."""

    def look(self, least: int = 0) -> StoreError | None:
        """Why nothing can be written, or soon can't: fewer than ``least`` bytes are free. Does not raise."""

    def close(self) -> None: ...
