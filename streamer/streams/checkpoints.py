"""Snapshots of sessions, written to the store in groups and read back. A failing store ends no stream."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import monotonic
from typing import Any

from streamer.metrics import Metrics
from streamer.store import Store, StoreError
from streamer.streams.session import Session
from streamer.streams.snapshot import SnapshotError

__all__ = ["Checkpoints"]

log = logging.getLogger(__name__)

#: Seconds before the same failure is logged again.
SILENCE = 60.0


class Checkpoints:
    """``store`` ``None``: nothing is saved, and received rows count as safe.

    A failing store is logged and counted; streams continue, and rows that are not safe are not acknowledged.
    """

    def __init__(self, store: Store | None, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        #: Why nothing can be written, as far as is known.
        self.trouble: StoreError | None = None
        self._said: dict[str, tuple[str, float]] = {}

    def look(self, least: int) -> None:
        """Check whether the disk can be written, and has ``least`` bytes free. Waits for the disk."""
        before, self.trouble = self.trouble, None if self._store is None else self._store.look(least)
        self._metrics.disk_trouble.labels("sessions").set(self.trouble is not None)
        if before is not None and self.trouble is None:
            log.warning("the session store can be written again")
            self._said.clear()
        elif self.trouble is not None:
            self._say("look", self.trouble)

    def save(self, sessions: Sequence[Session], *, whole: bool, until: float) -> dict[Session, tuple[int, int]]:
        """Write all sessions in one transaction; returns version and position of each that is safe now.

        ``until``: monotonic time; a stream whose chunk in flight has not come back by then is left out, and so is one
        whose snapshot fails for any reason. No stream is held at the end.
        """
        if self._store is None:
            return {session: (session.version, session.received) for session in sessions}
        rows: list[tuple[str, bytes]] = []
        positions: dict[Session, tuple[int, int]] = {}
        with ExitStack() as held:
            for session in sessions:  # all are held at once, so that the waits for their chunks in flight overlap
                held.enter_context(session.held())
            for session in sessions:
                try:
                    snapshot = session.snapshot(max(0.0, until - monotonic()), whole=whole)
                    rows.append((session.id, snapshot.to_bytes()))
                    positions[session] = (snapshot.version, snapshot.received)
                except SnapshotError:  # it left meanwhile
                    pass
                except (
                    Exception
                ) as error:  # a stream that is stuck, or too large for the memory, does not affect others
                    self._metrics.store_errors.labels("snapshot").inc()
                    extra = {"stream": session.id, "error": str(error) or type(error).__name__}
                    log.error("a stream could not be saved", extra=extra)
        if not self._guard("put", lambda store: store.put(rows)):
            return {}
        self._metrics.snapshots.inc(len(rows))
        self._metrics.snapshot_bytes.inc(sum(len(data) for _, data in rows))
        return positions

    def put_away(self, id: str, *, delete: bool) -> bool:
        """Delete or retire the snapshot of a stream that left memory. Not ``delete``: its client may still come back.
        False if that failed."""
        if self._store is None:
            return True
        return self._guard("forget", lambda store: store.delete([id]) if delete else store.retire([id]))

    def put_asleep(self, id: str, data: bytes) -> None:
        """Write the snapshot of a stream that is not in memory, or is about to leave it. Raises :class:`StoreError`."""
        if self._store is None:
            raise StoreError("this daemon keeps no streams on a disk")
        self._store.put([(id, data)])
        self._store.retire([id])

    def ids(self) -> list[str]:
        """The ids of all streams on the disk. Raises :class:`StoreError`."""
        return [] if self._store is None else self._store.ids()

    def purge(self, seconds: float) -> None:
        """Delete retired streams whose clients did not come back in that time."""
        self._guard("purge", lambda store: store.purge(seconds))

    def get(self, id: str) -> bytes | None:
        """Raises :class:`StoreError`, counted."""
        if self._store is None:
            return None
        try:
            return self._store.get(id)
        except StoreError:
            self._metrics.store_errors.labels("get").inc()
            raise

    def age(self, id: str) -> float | None:
        """Seconds for which a stream that is no longer in memory has been asleep. Raises :class:`StoreError`."""
        return None if self._store is None else self._store.age(id)

    def live(self) -> Iterator[tuple[str, bytes]]:
        """The live streams of the last run."""
        if self._store is not None:
            try:
                yield from self._store.live()
            except StoreError as error:
                self._failed("live", error)

    def _guard(self, kind: str, call: Callable[[Store], Any]) -> bool:
        if self._store is None:
            return False
        try:
            call(self._store)
            return True
        except StoreError as error:
            self._failed(kind, error)
            return False

    def _failed(self, kind: str, error: StoreError) -> None:
        self._metrics.store_errors.labels(kind).inc()
        if error.full:
            self.trouble = error
        self._say(kind, error)

    def _say(self, kind: str, error: StoreError) -> None:
        """Log the failure at intervals: a disk may be full for hours, and is tried every other second."""
        text, now = str(error), monotonic()
        before = self._said.get(kind)
        if before is None or before[0] != text or now - before[1] >= SILENCE:
            self._said[kind] = text, now
            log.error("the session store failed", extra={"what": kind, "error": text})
