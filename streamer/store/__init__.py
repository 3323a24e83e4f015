"""The store of sleeping streams. A store keeps bytes by stream id and does not interpret them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

__all__ = ["DamagedError", "Store", "StoreError"]


class StoreError(OSError):
    """An operation of the store failed; the data of a failed write are not on the disk.

    ``passing``: a later try may succeed: the disk is full, gone, read-only or slow. ``full``: there is no space."""

    def __init__(self, message: str, *, passing: bool = False, full: bool = False) -> None:
        super().__init__(message)
        self.passing, self.full = passing or full, full


class DamagedError(StoreError):
    """The saved data exist, but are damaged."""


class Store(Protocol):
    """Thread-safe. Every method raises :class:`StoreError`.

    Ages are seconds while a store was open: neither a change of the date nor a machine that was off ages a stream.
    """

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        """Write all snapshots durably, or none; their streams are live from then on."""

    def get(self, id: str) -> bytes | None: ...

    def ids(self) -> list[str]:
        """The ids of all saved streams, sorted."""

    def live(self) -> Iterator[tuple[str, bytes]]:
        """The streams that were not retired; a start restores them."""

    def retire(self, ids: Iterable[str]) -> None:
        """Keep the streams for clients that come back late; a start does not restore them. Their age counts from
        now."""

    def delete(self, ids: Iterable[str]) -> None: ...

    def age(self, id: str) -> float | None:
        """Seconds since the stream was written or retired; ``None`` if it is not saved."""

    def purge(self, seconds: float) -> int:
        """Delete streams that were retired longer ago than that; returns their number. Live streams are kept at any
        age."""

    def look(self, least: int = 0) -> StoreError | None:
        """Why nothing can be written, or soon can't: fewer than ``least`` bytes are free. Does not raise."""

    def close(self) -> None: ...
