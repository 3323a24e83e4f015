"""A stream of another daemon comes to a fleet, with all that was kept of it there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from streamer.names import SERIES_CHARACTERS, NameRefusedError, check_name
from streamer.sensors.table import Parts
from streamer.store import StoreError
from streamer.store.journal import Saved

if TYPE_CHECKING:
    from streamer.sensors.ingest import Fleet

__all__ = ["Arrival", "settle"]


class Arrival(NamedTuple):
    """``data``: ``parts`` as they are saved."""

    name: str
    parts: Parts
    data: bytes


def settle(fleet: Fleet, arrival: Arrival, seq: int) -> str | None:
    """Called by the fleet's writer; ``seq``: of the last record that there is. Why it can't come; ``None``: it is here,
    and on the disk. Raises :class:`StoreError`: it is not."""
    name, directory, table = arrival.name, fleet.directory, fleet.table
    try:
        check_name(name, SERIES_CHARACTERS)
    except NameRefusedError as error:
        return f"{name[:60]!a} is not a name: {error}"
    slot, opened = directory.slots.get(name, -1), False
    if slot >= 0 and (table.latest.readings[slot] or fleet.written[slot]):
        return f"sensor {name[:200]!r} has readings here: delete it first"
    if slot < 0:
        if len(directory.slots) >= directory.capacity or (reserved := directory.reserve()) is None:
            return f"there are {directory.capacity} sensors already (max_sensors)"
        (slot, _), opened = reserved, True
    id = int(directory.ids[slot])

    def undo() -> None:
        table.clear(slot)
        if opened:
            directory.release(slot)

    with fleet.lane_of(slot).lock:
        try:
            with fleet.lane_of(slot).rows:
                table.write(slot, arrival.parts)
        except (ValueError, KeyError) as error:
            undo()
            return f"the state of {name[:200]!r} does not fit this model: {error}"
        table.applied[slot] = seq
    if fleet.journal is not None:
        try:
            if opened:
                fleet.journal.append([(id, name)], [])
            fleet.journal.save([Saved(id, name, seq, fleet.model.digest, arrival.data)], 0)
        except BaseException:
            if opened:
                with contextlib.suppress(StoreError):  # else a start finds a sensor without a reading
                    fleet.journal.append([(id, None)], [])
            with fleet.lane_of(slot).lock:
                undo()
            raise
    if opened:
        directory.enter(name, slot)
    directory.written[slot] = directory.saved[slot] = seq
    return None
