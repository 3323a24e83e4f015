"""Shared by all protocols for readings: the parsed result, its errors, and the cache of stream names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from streamer.names import series_name as named
from streamer.sensors.choice import other_kind
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.layout import RowLayout
from streamer.serve.bounds import charge
from streamer.sources.readings import Readings
from streamer.sources.tables.order import descend

if TYPE_CHECKING:
    from streamer.sensors.host import Sensors
    from streamer.sensors.ingest import Fleet

__all__ = [
    "EXPECTED",
    "TOGETHER",
    "BodyError",
    "Collected",
    "Names",
    "Parsed",
    "expected",
    "fleet_of",
    "named",
    "read_batch",
]

FAULTS = 10  # reported in words; more are only counted
#: Bound of each generation of the cache of names, in bytes of keys and names, roughly; and the seconds that an unused
#: name stays, at least.
#: Most sensors report more often than every five minutes.
KEPT_BYTES, KEPT_SECONDS = 2**25, 300.0
EACH, PART = 150, 50  # further bytes of an entry, and of each object in it

#: Bytes of memory that a reading takes while its body is read, much more than a short line; and readings that are
#: charged together.
READING, TOGETHER = 256, 1024

EXPECTED = (
    "Expected is CSV with a header (time,value) or JSON objects, one a line, sent as they are: curl --data-binary @FILE"
    " (-d drops the ends of lines)"
)

K = TypeVar("K", bound=tuple[bytes, ...])
T = TypeVar("T")


class BodyError(ValueError):
    """A body without any usable reading. ``status``: HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Parsed:
    """The readings of a body. ``skipped``: number of unused items by reason. ``faults``: messages for the first ones
    that are the sender's mistake; harmless reasons (``string``, ``stale``) have none."""

    batch: ReadingBatch
    skipped: dict[str, int]
    faults: list[str]


@dataclass(slots=True)
class Collected:
    """Collects readings for a :class:`Parsed`."""

    names: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def fault(self, reason: str, message: str, count: int = 1) -> None:
        self.skipped[reason] += count
        if len(self.faults) < FAULTS:
            self.faults.append(message)

    def add(self, name: str, time: float, value: float) -> None:
        """Raises :class:`TooMuchError`."""
        if len(self.names) % TOGETHER == 0:
            charge(TOGETHER * READING)
        self.names.append(name)
        self.times.append(time)
        self.values.append(value)

    def extend(self, names: list[str], times: list[float], values: list[float]) -> None:
        """Raises :class:`TooMuchError`."""
        charge(len(names) * READING)
        self.names += names
        self.times += times
        self.values += values

    def done(self) -> Parsed:
        return Parsed(ReadingBatch.made(self.names, self.times, self.values), dict(self.skipped), self.faults)


class Names(dict[K, str | None]):
    """A cache of names by their raw bytes: ``names[key]`` is None for a key that is not here.

    An entry that nobody asks for is dropped when new ones come, after :data:`KEPT_SECONDS` to twice that: names that
    come once do not fill the memory. There are two generations: what is found in the older one moves to the younger
    one, which becomes the older one in its turn. ``limit``: bytes of each. Thread-safe.
    """

    def __init__(self, limit: int = KEPT_BYTES, clock: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._limit, self._clock = limit, clock
        self._older: dict[K, str | None] = {}
        self._size, self._turn = 0, clock() + KEPT_SECONDS
        self._lock = Lock()

    def __missing__(self, key: K) -> str | None:
        with self._lock:
            if (name := self._older.pop(key, None)) is not None:
                self._add(key, name)
        return name

    def keep(self, key: K, name: str) -> str:
        with self._lock:
            if key not in self:
                self._add(key, name)
        return name

    def __len__(self) -> int:
        return super().__len__() + len(self._older)

    def _add(self, key: K, name: str) -> None:
        size = EACH + len(name) + sum(map(len, key)) + PART * len(key)
        if self._size + size > self._limit or self._clock() >= self._turn:
            self._older = dict(self)
            self.clear()
            self._size, self._turn = 0, self._clock() + KEPT_SECONDS
        if size <= self._limit:
            self[key] = name
            self._size += size


def fleet_of(source: Readings, sensors: Sensors, model: str | None) -> Fleet:
    """The fleet of the readings: ``model``, or the one to which the first line belongs; then lines that belong to
    another are refused. Raises as :meth:`Sensors.choose` does."""
    fleet, fleets = sensors.choose(model, source.names()), sensors.served()
    if model is None and any(each.layout.variables for each in fleets.values()):
        source.misfit = lambda columns: other_kind(fleets, fleet, columns)
    return fleet


def read_batch(source: Readings, layout: RowLayout, stream: str, partial: bool = False) -> ReadingBatch:
    """All readings of a CSV or JSON, in order; a descending file is reversed. For a model of rows: its variables, one
    line each; ``stream``: for lines that name none; ``partial``: a CSV may lack some of the variables. Raises
    :class:`TooMuchError`."""
    if not layout.variables:
        batch = ReadingBatch.of(list(_charged(source, 1)))
    else:
        source.columns = replace(source.columns, values=layout.variables, partial=partial)
        rows = list(_charged(source.rows(), len(layout.variables)))
        batch = ReadingBatch.of_rows(rows, layout.variables, stream)
    return batch.take(np.argsort(batch.times, kind="stable")) if descend(batch.names, batch.times) else batch


def _charged(readings: Iterable[T], variables: int) -> Iterator[T]:
    for number, reading in enumerate(readings):
        if number % TOGETHER == 0:
            charge(TOGETHER * READING * variables)
        yield reading


def expected(source: Readings) -> str:
    """A description of the expected format, for a text without readings."""
    if source.header and not source.bad and not source.cells:
        shown = ", ".join(source.header)[:100]
        what = f"there is a header ({shown}) and no line with a value below it"
    else:
        what = "nothing in it could be read as one"
    return f"{source.name}: no reading: {what}. {EXPECTED}"
