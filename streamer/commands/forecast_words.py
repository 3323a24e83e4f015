"""Messages of ``streamer forecast`` about its input, printed at the end."""

from __future__ import annotations

import numpy as np

from streamer.sensors.ingest import Fleet
from streamer.sources.readings import Readings

__all__ = ["could_not", "mostly_late", "nothing", "other_step"]


def could_not(source: Readings) -> str:
    """The counts of what could not be read; empty if everything was read."""
    lines = [f"{source.bad} of {source.lines} lines"] * bool(source.bad)
    cells = [f"{source.cells} cell{'s' * (source.cells > 1)}"] * bool(source.cells)
    were = "was" if source.bad + source.cells == 1 else "were"
    return f"{' and '.join(lines + cells)} could not be read and {were} left out" if lines or cells else ""


def nothing(source: Readings) -> str:
    """Why there are no readings, and what to do."""
    if source.bad or source.cells:
        return "no line and no cell could be read as one"
    if source.header:
        return f"there is no value below the header ({', '.join(source.header)[:200]})"
    return "CSV with a header, JSON objects or lines of numbers are read"


def mostly_late(fleet: Fleet) -> str:
    """Advice if most readings were left out because they came late; else empty."""
    counts = fleet.table.timelines.counts
    late, run = int(counts["late"].sum()), int(fleet.table.latest.readings.sum())
    advice = f"most readings came late: sort them, or name a file, which is sorted ({late} late, {run} run)"
    return advice if late > run else ""


def other_step(fleet: Fleet) -> str:
    """A warning if the rows' step differs from that of the training data; else empty."""
    manifest, slots = fleet.model.manifest, np.array(list(fleet.slots.values()), np.intp)
    trained = manifest.input.step_seconds
    if not fleet.layout.variables or not trained or not len(slots):
        return ""
    found = fleet.table.timelines.pace(slots)
    other = found[(found > 0) & (np.abs(found - trained) > 0.01 * trained)]
    if not len(other):
        return ""
    return f"a row comes every {other[0]:g} s, and {manifest.name} has learnt rows that come every {trained:g} s"
