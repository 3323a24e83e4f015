"""Export, import and move of streams, as the bytes of a sleeping stream.

A stream that moves is held: everything that is run or acknowledged is in its bytes. Only when the other daemon has
confirmed that the stream is on its disk does the stream end here and its client get the new address. So after a kill
of either daemon at any time, acknowledged rows are on at least one of the two disks, and the client knows the newer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum
from threading import Event
from typing import TYPE_CHECKING, Any

from streamer.names import name_of, owner_of
from streamer.refusals import Refused
from streamer.store import StoreError
from streamer.streams.moved import moved_note, moved_to
from streamer.streams.snapshot import Snapshot, SnapshotError

if TYPE_CHECKING:
    from streamer.streams.admission import Admission
    from streamer.streams.keeper import Keeper
    from streamer.streams.table import StreamTable

__all__ = ["Mover", "PeerError", "Send"]

log = logging.getLogger(__name__)

#: Tries for a stream whose client gets an acknowledgement during the move.
TRIES = 4
#: Seconds for running the received rows of a stream, before it moves with the remaining ones.
RUN_OUT = 1.0


class Outcome(Enum):
    """``GONE``: the stream was moved before, or deleted. ``STAYS``: it has ended."""

    MOVED, GONE, STAYS = range(3)


class PeerError(RuntimeError):
    """The other daemon did not take the stream, which stays here. ``status``: of its answer, ``None`` without one;
    ``reason``: its message. ``reached``: whether a daemon answers at that address, as far as is known."""

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason or message
        self.reached = True


#: Brings a stream's bytes to the other daemon's disk. Raises :class:`PeerError`.
Send = Callable[[str, bytes], None]


class Mover:
    """All methods wait for the disk. ``patience`` in seconds, with a chunk in flight."""

    def __init__(self, table: StreamTable, keeper: Keeper, admission: Admission, patience: float) -> None:
        self._table, self._keeper, self._admission, self._patience = table, keeper, admission, patience
        self._moving = threading.Lock()

    # -- one by one ----------------------------------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The ids of all streams here, awake and asleep."""
        with self._admission.store_errors():
            asleep = self._keeper.disk.ids()
        return sorted({*asleep, *(session.id for session in self._table.all() if session.lasting)})

    def export(self, id: str) -> bytes | None:
        """The bytes of the stream, which continues here; ``None``: there is none. Raises :class:`Refused`."""
        session = self._table.get(id)
        if session is None:
            return self._admission.saved(id)
        try:
            return session.snapshot(self._patience).to_bytes()
        except SnapshotError:  # it left at this moment
            return self._admission.saved(id)
        except TimeoutError as error:
            raise self._admission.refuse("stuck", str(error), 5.0) from error

    def bring(self, id: str, data: bytes) -> Snapshot:
        """Import a stream of another daemon to the disk; a client that resumes it wakes it. Raises :class:`Refused` for
        a stream of another model file, over one that is awake here, and over one with a newer position."""
        try:
            saved = Snapshot.from_bytes(data)
        except SnapshotError as error:
            raise self._admission.refuse("snapshot", f"the stream can't be read: {error}") from error
        if saved.id != id:
            of = [f"{name_of(each)!r}" + (f" of {owner_of(each)}" if owner_of(each) else "") for each in (saved.id, id)]
            raise self._admission.refuse("snapshot", f"these are the bytes of stream {of[0]}, not of {of[1]}")
        self._admission.check(id)
        digests = self._admission.digests(saved.model)
        if saved.digest not in digests:
            here = ", ".join(digest[:12] for digest in digests)
            text = f"it was made by another file of the model {saved.model} ({saved.digest[:12]}), here is {here}"
            raise self._admission.refuse("snapshot", f"{text}: serve the same file here")

        def fits(before: bytes | None) -> None:
            if before is None or moved_to(before) is not None:
                return
            try:
                old = Snapshot.from_bytes(before)
            except SnapshotError:
                return  # no client could continue it
            if (old.received, old.seq) > (saved.received, saved.seq):
                text = (
                    f"stream {name_of(id)!r} sleeps here at {old.received}, behind the {saved.received} of these bytes"
                )
                raise self._admission.refuse("conflict", f"{text}: delete it first")

        with self._admission.store_errors():
            if not self._keeper.replace(id, data, fits):
                raise self._admission.refuse(
                    "duplicate", f"stream {name_of(id)!r} is awake here: evict or delete it first"
                )
        return saved

    def evict(self, id: str) -> bool:
        """Put a stream to sleep, also with a client attached: the client's next row wakes it. False: it is not
        awake."""
        session = self._table.get(id)
        if session is None:
            return False
        return self._keeper.evict(session, "evicted", "put to sleep by an administrator: it wakes with the next row")

    # -- all of them ---------------------------------------------------------------------------------------------------

    def drain_to(self, url: str, send: Send) -> dict[str, Any]:
        """Move every stream to ``url``, and redirect new ones from now on. Streams that the other daemon does not take
        stay. Returns ``moved``, their number, and ``left``, the reasons by id. If it takes none at all, new streams
        start here again."""
        with self._moving:
            before, self._admission.elsewhere = self._admission.elsewhere, url
            done, moved, left = set[str](), 0, dict[str, str]()
            while fresh := [id for id in self.ids() if id not in done]:
                for id in fresh:
                    done.add(id)
                    try:
                        outcome = self.move(id, url, send)
                        moved += outcome is Outcome.MOVED
                        if outcome is Outcome.STAYS:
                            left[id] = "it has ended"
                    except (PeerError, StoreError, Refused, TimeoutError, SnapshotError) as error:
                        left[id] = str(error)
                        log.error("a stream could not be moved", extra={"stream": id, "error": str(error)})
            if left and not moved:
                self._admission.elsewhere = before
            return {"moved": moved, "left": left}

    def stay(self) -> None:
        """Let new streams start here again."""
        self._admission.elsewhere = None

    def move(self, id: str, url: str, send: Send) -> Outcome:
        """Move one stream. Raises :class:`PeerError` and others: then it stays."""
        for _ in range(TRIES):
            session = self._table.get(id)
            if session is not None:
                if session.state != "active" or not session.lasting:
                    return Outcome.STAYS
                over = Event()
                session.when_run(over.set)
                over.wait(RUN_OUT)
                with session.held():
                    snapshot = session.snapshot(self._patience)
                    if snapshot.finished:
                        return Outcome.STAYS
                    send(id, snapshot.to_bytes())
                    text = f"this stream goes on at {url}: connect there and resume it"
                    event = {"type": "error", "code": "moved", "message": text, "url": url}
                    if self._keeper.hand_over(session, snapshot.received, moved_note(url), event):
                        return Outcome.MOVED
                continue
            data = self._keeper.disk.get(id)
            if data is None or moved_to(data) is not None:
                return Outcome.GONE
            asleep = Snapshot.from_bytes(data)
            if asleep.finished:
                return Outcome.STAYS
            send(id, data)

            def unchanged(now: bytes | None, sent: bytes = data) -> None:
                if now != sent:
                    raise PeerError("it went on while it was moved: try again")

            if self._keeper.replace(id, moved_note(url), unchanged):
                return Outcome.MOVED
        raise PeerError("it could not be held still: try again")
