"""Joins readings of the same time to rows, for models of several variables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamer.sensors.columns import Reading, Row

__all__ = ["Row", "rows"]


def rows(readings: Iterable[Reading], columns: int = 0) -> Iterator[Row]:
    """Rows of readings. A row ends when the time changes, a column repeats, or it has ``columns`` values."""
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
