"""Sensor readings from CSV and NDJSON, line by line as they come: a pipe that never ends takes no more than its last
line.

A line is the unit of failure: one that can't be read is told with its number, counted and left out. So a quoted field
may not span lines, where one stray quote would swallow the rest of the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from streamer.names import check_name
from streamer.sensors.columns import LARGEST, Reading, Row
from streamer.sources import SourceError
from streamer.sources.times import parse_time

__all__ = ["Columns", "Reading", "Readings", "Row"]

T = TypeVar("T")

TIMES = ("ts", "time", "timestamp", "date", "datetime")
IDS = ("id", "sensor", "stream", "name", "series")
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity"})
LINE_BYTES = 2**20
SHOWN = 10  # complaints, then they are only counted


@dataclass(frozen=True)
class Columns:
    """What the user named; the rest is guessed. ``wide``: no column says the stream, whatever its name."""

    id: str | None = None
    time: str | None = None
    values: tuple[str, ...] = ()
    wide: bool = False

    def whose(self, names: Sequence[str]) -> str | None:
        """The column that says the stream."""
        return self.id or (None if self.wide else _guess([name for name in names if name not in self.values], IDS))


class Readings:
    """One input: a path, ``-``, or ``data`` that is there already. Iterate it once. Raises :class:`SourceError` where
    nothing can be read at all.

    :meth:`names` says what the columns are called, before anything else is read. ``columns`` may be set until then.
    ``complain`` gets a sentence for each of the first bad lines; ``bad`` counts them all. ``timed`` and the ``header``
    of a CSV are known behind the first reading.
    """

    def __init__(self, name: str, columns: Columns, complain: Callable[[str], None], data: bytes | None = None) -> None:
        self.name, self.columns = name, columns
        self.bad = self.lines = 0
        self.timed = True
        self.header: tuple[str, ...] = ()
        self._complain = complain
        self._raw = _open(name) if data is None else io.BufferedReader(io.BytesIO(data))
        self.total = os.fstat(self._raw.fileno()).st_size if data is None and name != "-" else 0
        zipped = data is None and cast(Any, self._raw).peek(2)[:2] == b"\x1f\x8b"
        self._first: str | None = None  # the first line that is text, once it was asked for
        self._file: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if zipped else self._raw

    @property
    def done(self) -> int:
        """Bytes read, to be compared with ``total`` (0 where the end is not known)."""
        return self._raw.tell() if self.total else 0

    def close(self) -> None:
        if self.name != "-":
            self._raw.close()

    def names(self) -> tuple[str, ...]:
        """Columns of a CSV, or keys of the first object; empty where the first line is neither."""
        if self._first is None:
            self._first = next(self._decoded(), None)
        first = self._first or ""
        try:
            if not first.lstrip().startswith("{"):
                return tuple(_header(first)[1])
            found = json.loads(first)
            return tuple(found) if isinstance(found, dict) else ()
        except (ValueError, RecursionError, csv.Error):
            return ()

    def __iter__(self) -> Iterator[Reading]:
        for parse, line in self._parsers():
            yield from self._guarded(parse.readings, line) or ()

    def rows(self) -> Iterator[Row]:
        """A line each, with the stream apart from the columns."""
        for parse, line in self._parsers():
            row = self._guarded(parse.row, line)
            if row is not None:
                yield row

    def _parsers(self) -> Iterator[tuple[Csv | Ndjson, str]]:
        first = next(self._decoded(), None) if self._first is None else self._first
        if first is None:
            if not self.bad:
                raise SourceError(f"{self.name}: is empty")
            return
        parse: Csv | Ndjson
        if first.lstrip().startswith("{"):
            parse = Ndjson(self)
            yield parse, first
        else:
            parse = Csv(self, first)
        for line in self._decoded():
            yield parse, line

    def _guarded(self, parse: Callable[[str], T], line: str) -> T | None:
        try:
            return parse(line)
        except (ValueError, OverflowError, RecursionError, csv.Error) as error:
            self._fault(str(error))
            return None

    def _fault(self, what: str) -> None:
        self.bad += 1
        if self.bad <= SHOWN:
            self._complain(f"{self.name}: line {self.lines}: {what}")
        elif self.bad == SHOWN + 1:
            self._complain(f"{self.name}: more lines that can't be read are only counted")

    def _decoded(self) -> Iterator[str]:
        """Lines that are text and not blank."""
        while raw := self._line():
            self.lines += 1
            if len(raw) > LINE_BYTES:
                while raw and not raw.endswith(b"\n"):
                    raw = self._line()
                self._fault(f"is longer than {LINE_BYTES} bytes")
                continue
            try:
                text = raw.decode("utf-8-sig" if self.lines == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError:
                self._fault("is not UTF-8")
                continue
            if text.strip():
                yield text

    def _line(self) -> bytes:
        try:
            return self._file.readline(LINE_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:  # of gzip: cut off, or damaged
            self.bad += 1
            self._complain(f"{self.name}: can't be read behind line {self.lines}: {error}")
            return b""


class Csv:
    """A header, then one line for each time: wide (a column is a stream) or long (a column says the stream)."""

    def __init__(self, source: Readings, header: str) -> None:
        try:
            self._delimiter, names = _header(header)
        except csv.Error as error:
            raise SourceError(f"{source.name}: line 1 is not a header: {error}") from error
        columns = source.columns
        if all(_numeric(name) for name in names):
            raise SourceError(f"{source.name}: line 1 has no names of columns: a header is needed, such as time,value")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SourceError(f"{source.name}: the column {twice!r} is there twice")
        for wanted in (columns.id, columns.time, *columns.values):
            if wanted is not None and wanted not in names:
                raise SourceError(f"{source.name}: has no column {wanted!r}: there are {', '.join(names)[:300]}")
        time, id = columns.time or _guess(names, TIMES), columns.whose(names)
        source.timed, source.header = time is not None, tuple(names)
        values = columns.values or tuple(name for name in names if name not in (time, id))
        if not values:
            raise SourceError(f"{source.name}: has no column of values, only {', '.join(names)[:300]}")
        self._width = len(names)
        self._time = None if time is None else names.index(time)
        self._id = None if id is None else names.index(id)
        self._values = {names.index(value): value for value in values}
        self._alone = len(values) == 1
        #: Guessed columns of which nothing but missing was seen: the first that is there shows if they hold numbers.
        self._unsure = set() if columns.values else set(self._values)

    def readings(self, line: str) -> list[Reading]:
        time, values, id = self.row(line)
        return [Reading(_named(id, name, self._alone), time, value) for name, value in values.items()]

    def row(self, line: str) -> Row:
        cells = _split(line, self._delimiter)
        if len(cells) != self._width:
            raise ValueError(f"has {len(cells)} fields, the header has {self._width}")
        time = None if self._time is None else parse_time(cells[self._time])
        id = None if self._id is None else _id(cells[self._id])
        found: dict[str, float | None] = {}
        for at, name in list(self._values.items()):
            cell = cells[at].strip()
            try:
                value = self._number(cell)
            except ValueError:
                if at not in self._unsure:
                    raise ValueError(f"{name} is {cell[:40]!r}, which is not a number") from None
                self._unsure.discard(at)
                del self._values[at]  # a column of words
                continue
            if value is not None:
                self._unsure.discard(at)
            if at not in self._unsure:
                found[name] = value
        return Row(time, found, id)

    def _number(self, cell: str) -> float | None:
        # with semicolons between the fields, a comma is a decimal point
        return _number(cell.replace(",", ".") if self._delimiter == ";" else cell)


class Ndjson:
    """One object a line; its numbers are readings."""

    def __init__(self, source: Readings) -> None:
        self._source, self._columns = source, source.columns
        self._timed: bool | None = None

    def readings(self, line: str) -> list[Reading]:
        time, values, id = self.row(line)
        alone = len(self._columns.values) == 1
        return [Reading(_named(id, name, alone), time, value) for name, value in values.items()]

    def row(self, line: str) -> Row:
        try:
            found = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}") from None
        if not isinstance(found, dict):
            raise ValueError("is not a JSON object")
        columns = self._columns
        names = list(found)
        time, id = columns.time or _guess(names, TIMES), columns.whose(names)
        timed = time in found
        if self._timed is not None and self._timed != timed:
            raise ValueError(f"has {'no ' * self._timed}time, unlike the lines before")
        at = None
        if timed and time is not None:
            said = found[time]
            if isinstance(said, bool) or not isinstance(said, str | int | float):
                raise ValueError(f"{time} is {json.dumps(said)[:40]}, which is not a time")
            at = parse_time(said)
        stream = None if id is None or id not in found else _id(str(found[id]))
        wanted = columns.values or [name for name in names if name not in (time, id)]
        values = {
            name: _json_number(name, found[name])
            for name in wanted
            if name in found and (columns.values or found[name] is None or _is_number(found[name]))
        }
        if not values:
            raise ValueError("has no value" + (f" ({', '.join(columns.values)})"[:100] if columns.values else ""))
        self._source.timed = self._timed = timed
        return Row(at, values, stream)


def _open(name: str) -> IO[bytes]:
    if name == "-":
        if os.isatty(0):
            raise SourceError("-: standard input is a terminal; pipe CSV or NDJSON into it")
        # not sys.stdin: the interpreter wants its lock to end, which a thread that waits for a line holds
        return open(0, "rb", closefd=False)
    path = Path(name)
    if path.is_dir():
        raise SourceError(f"{name}: is a folder, not a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{name}: {(error.strerror or str(error)).lower()}") from error


def _guess(names: Sequence[str], known: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def _header(line: str) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns. Raises ``csv.Error``."""
    delimiter = max(",;\t", key=line.count)
    return delimiter, [name.strip() for name in _split(line, delimiter)]


def _split(line: str, delimiter: str) -> list[str]:
    if '"' not in line:
        return line.split(delimiter)
    return next(csv.reader([line], delimiter=delimiter, strict=True, skipinitialspace=True))


def _named(id: str | None, column: str, alone: bool) -> str:
    if id is None:
        return check_name(column)
    return id if alone or column.lower() == "value" else check_name(f"{id}.{column}")


def _id(said: str) -> str:
    return check_name(said.strip())


def _number(cell: str) -> float | None:
    """``None``: missing. Raises ``ValueError``."""
    if cell.lower() in MISSING:
        return None
    if "_" in cell:  # Python's own spelling of numbers
        raise ValueError
    return _finite(float(cell))


def _finite(value: float) -> float | None:
    return value if abs(value) < LARGEST else None


def _numeric(cell: str) -> bool:
    try:
        return _number(cell) is not None
    except ValueError:
        return False


def _is_number(said: object) -> bool:
    return isinstance(said, int | float) and not isinstance(said, bool)


def _json_number(name: str, said: object) -> float | None:
    if said is None:
        return None
    try:
        if isinstance(said, int | float) and not isinstance(said, bool):
            return _finite(float(said))
        if isinstance(said, str):
            return _number(said.strip())
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name} is {json.dumps(said)[:40]}, which is not a number")
