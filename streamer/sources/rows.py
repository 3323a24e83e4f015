"""Readings of one table, put together again: those of one time are a row, for models of several variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from streamer.sources.readings import Reading

__all__ = ["Row", "rows"]


class Row(NamedTuple):
    """``time`` in unix seconds, ``None`` where there are none; ``values`` by column, ``None``: missing."""

    time: float | None
    values: dict[str, float | None]


def rows(readings: Iterable[Reading], columns: int = 0) -> Iterator[Row]:
    """A row ends where the time changes or a column comes again; at once where it has so many ``columns``."""
    time: float | None = None
    values: dict[str, float | None] = {}
    for reading in readings:
        if values and (reading.time != time or reading.stream in values):
            yield Row(time, values)
            values = {}
        time = reading.time
        values[reading.stream] = reading.value
        if len(values) == columns:
            yield Row(time, values)
            values = {}
    if values:
        yield Row(time, values)
