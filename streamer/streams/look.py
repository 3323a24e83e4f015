"""Position and state of one stream, JSON-ready: from its session, or from its snapshot on the disk."""

from __future__ import annotations

from typing import Any

from streamer.names import name_of
from streamer.streams.admission import Admission
from streamer.streams.keeper import Keeper
from streamer.streams.session import Session
from streamer.streams.snapshot import Snapshot, SnapshotError

__all__ = ["look_asleep", "look_awake"]


def look_awake(session: Session, acknowledged: int, now: float) -> dict[str, Any]:
    """``acknowledged``: rows that are on the disk. ``now``: monotonic seconds."""
    return {
        "stream": name_of(session.id),
        "model": session.model,
        "position": session.received,
        "acknowledged": acknowledged,
        "seq": session.seq,
        "state": session.state if session.state != "active" else "attached" if session.sink else "waiting",
        "age_seconds": round(now - session.last_input, 3),
    }


def look_asleep(stream: str, admission: Admission, keeper: Keeper) -> dict[str, Any] | None:
    """``None``: the stream is not on the disk. Waits for the disk. Raises :class:`~streamer.refusals.Refused`."""
    data = admission.saved(stream)
    if data is None:
        return None
    with admission.store_errors():
        age = keeper.disk.age(stream)
    try:
        saved = Snapshot.from_bytes(data)
    except SnapshotError as error:
        raise admission.refuse("snapshot", f"the saved stream can't be read: {error}") from error
    return {
        "stream": name_of(stream),
        "model": saved.model,
        "position": saved.received,
        "acknowledged": saved.received,
        "seq": saved.seq,
        "state": "asleep",
        "age_seconds": round(age or 0.0, 3),
    }
