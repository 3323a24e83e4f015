"""Readings of one table, put together again: those of one time are a row, for models of several variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamer.sensors.columns import Reading, Row

__all__ = ["Row", "rows"]


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
