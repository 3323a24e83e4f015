"""Imports a stream of another daemon into a fleet, with its saved state, clock and scores."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

from streamer.names import SERIES_CHARACTERS, NameRefusedError, check_name
from streamer.sensors.table import Parts, SensorTable
from streamer.sensors.worker import SensorLane
from streamer.store import StoreError
from streamer.store.journal import Journal, Saved

__all__ = ["Arrival", "settle"]


class Arrival(NamedTuple):
    """``data``: ``parts`` as saved bytes."""

    name: str
    parts: Parts
    data: bytes


def settle(
    arrival: Arrival, table: SensorTable, journal: Journal | None, lane_of: Callable[[int], SensorLane], seq: int
) -> str | None:
    """Import the stream; called by a fleet's writer. ``seq``: of the last record. Returns the reason why it can't be
    imported; ``None``: it is here, and on the disk. Raises :class:`StoreError` if the disk fails."""
    name, directory = arrival.name, table.directory
    try:
        check_name(name, SERIES_CHARACTERS)
    except NameRefusedError as error:
        return f"{name[:60]!a} is not a name: {error}"
    slot, opened = directory.slots.get(name, -1), False
    if slot >= 0 and (table.latest.readings[slot] or directory.written[slot]):
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

    with lane_of(slot).lock:
        try:
            with lane_of(slot).rows:
                table.write(slot, arrival.parts)
        except (ValueError, KeyError) as error:
            undo()
            return f"the state of {name[:200]!r} does not fit this model: {error}"
        table.applied[slot] = seq
    if journal is not None:
        try:
            if opened:
                journal.append([(id, name)], [])
            journal.save([Saved(id, name, seq, table.model.digest, arrival.data)], 0)
        except BaseException:
            if opened:
                with contextlib.suppress(StoreError):  # else the next start would find a sensor without a reading
                    journal.append([(id, None)], [])
            with lane_of(slot).lock:
                undo()
            raise
    if opened:
        directory.enter(name, slot)
    directory.written[slot] = directory.saved[slot] = seq
    return None
