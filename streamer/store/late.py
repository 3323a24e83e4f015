"""The session store of a daemon that starts while its disk can't be written: it is opened when the disk works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from streamer.store import Store, StoreError
from streamer.store.salvage import Loss
from streamer.store.sessions import SqliteStore

__all__ = ["LateStore"]

log = logging.getLogger(__name__)


class LateStore:
    """A store behind ``make``, which is called again by :meth:`look` until it can be opened. Until then every method
    raises the :class:`StoreError` that keeps it closed. The constructor makes the first try, and raises errors that
    waiting can't cure (a missing permission, another daemon that uses the directory)."""

    def __init__(self, make: Callable[[], Store]) -> None:
        self._make = make
        self._store: Store | None = None
        self._why = StoreError("the store is not open yet")
        self._when_open: Callable[[bool], None] = lambda late: None
        try:
            self._store = make()
        except StoreError as error:
            if not error.passing:
                raise
            self._why = error
            log.error(f"{error}; going on without it, until it can be opened")

    def when_open(self, call: Callable[[bool], None]) -> None:
        """Call ``call`` once the store is open: at once, with False, or later from the caller of :meth:`look`, with
        True."""
        self._when_open = call
        if self._store is not None:
            call(False)

    @property
    def loss(self) -> Loss | None:
        """Kept and lost rows of a damaged file."""
        return self._store.loss if isinstance(self._store, SqliteStore) else None

    def look(self, least: int = 0) -> StoreError | None:
        if self._store is None:
            try:
                self._store = self._make()
            except StoreError as error:
                self._why = error
                return error
            log.warning("the store is open now")
            self._when_open(True)
        return self._store.look(least)

    def put(self, rows: Iterable[tuple[str, bytes]]) -> None:
        self._there().put(rows)

    def get(self, id: str) -> bytes | None:
        return self._there().get(id)

    def ids(self) -> list[str]:
        return self._there().ids()

    def live(self) -> Iterator[tuple[str, bytes]]:
        return self._there().live()

    def retire(self, ids: Iterable[str]) -> None:
        self._there().retire(ids)

    def delete(self, ids: Iterable[str]) -> None:
        self._there().delete(ids)

    def age(self, id: str) -> float | None:
        return self._there().age(id)

    def purge(self, seconds: float) -> int:
        return self._there().purge(seconds)

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _there(self) -> Store:
        if self._store is None:
            raise StoreError(str(self._why), passing=True, full=self._why.full)
        return self._store
