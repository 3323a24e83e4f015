"""JSON records to rows: the time, the stream, and every number at any depth, or only the named ones."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from streamer.names import SERIES_CHARACTERS, check_name
from streamer.sensors.columns import LARGEST, Row
from streamer.sources.tables.clock import Clock, find_zone
from streamer.sources.tables.documents import Documents
from streamer.sources.tables.encoding import Lines
from streamer.sources.tables.layouts import IDS, TIMES, Columns, guess
from streamer.sources.tables.numbers import SWITCHES, NumberError, Numbers, Sentinels
from streamer.sources.tables.report import TableReport
from streamer.sources.tables.shapes import ObjectRecord, numbers_in, records

__all__ = ["NOTHING", "Objects", "at_path"]

NOTHING = object()
SAMPLE = 1000
FEW = 10


def at_path(parsed: Any, path: str) -> Any:
    """The value at a path of keys joined by dots; ``NOTHING`` if there is none. A key may contain dots itself."""
    if isinstance(parsed, dict) and path in parsed:
        return parsed[path]
    for step in path.split("."):
        if isinstance(parsed, dict):
            parsed = parsed.get(step, NOTHING)
        elif isinstance(parsed, list) and step.isdecimal() and len(step) < 6 and int(step) < len(parsed):
            parsed = parsed[int(step)]
        else:
            return NOTHING
    return parsed


def _keys(parsed: Mapping[str, Any]) -> list[str]:
    """The keys of an object, and the paths to its inner values."""
    names = list(parsed)
    with contextlib.suppress(ValueError):  # too deep, or too many: reported when the record is read
        names += [name for name, _ in numbers_in(parsed) if name not in parsed]
    return names


class Objects:
    """Counterpart of :class:`~streamer.sources.tables.table.SourceTable` for JSON. ``names``: keys of the first
    object."""

    def __init__(
        self,
        lines: Lines,
        report: TableReport,
        columns: Callable[[], Columns],
        misfit: Callable[[], Callable[[Collection[str]], str] | None] = lambda: None,
    ) -> None:
        self._report, self._columns, self._misfit = report, columns, misfit
        self._answers: dict[tuple[str, ...], str] = {}  # answers by the keys of flat objects
        self._documents = Documents(lines, report)
        self._each = iter(self._documents)
        self._first: list[ObjectRecord] | None = None
        self.names: list[str] = []
        self.timed = True
        self.times: tuple[str, ...] = ()
        self._was_timed: bool | None = None
        self._clock: Clock | None = None
        self._numbers: dict[str, Numbers] = {}
        self._sure: set[str] = set()
        self._words: dict[str, tuple[int, int, str]] = {}  # how many, the line and the text of the first
        self._alone = False

    def begin(self) -> None:
        """Read up to the first value."""
        self._first = self._next()
        for record in self._first or ():
            self.names = _keys(record.values)
            break

    def _next(self) -> list[ObjectRecord] | None:
        for value in self._each:
            try:
                return list(records(value))
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
                known = isinstance(error, ValueError) and not isinstance(error, UnicodeError)
                self._report.line(self._documents.number, str(error) if known else "has a shape that is not known")
        return None

    def rows(self) -> Iterator[Row]:
        self._alone = len(self._columns().values) == 1
        found = self._first
        while found is not None:
            for record in found:
                try:
                    row = self._row(record, found)
                except (ValueError, OverflowError, RecursionError) as error:
                    self._report.line(self._documents.number, str(error))
                    continue
                if row is not None:
                    yield row
            found = self._next()
        for name, (_, _, word) in self._words.items():
            more = f"; --value {name} reads it as 1 and 0" if word.lower() in SWITCHES else ""
            self._report.columns[name[:60]] = f"words, such as {word[:30]!r}{more}"

    def named(self, row: Row, column: str) -> str:
        if row.stream is None:
            return check_name(column)
        if self._alone or column.lower() in ("value", "state"):
            return row.stream
        return check_name(f"{row.stream}.{column}")

    def _row(self, record: ObjectRecord, together: list[ObjectRecord]) -> Row | None:
        columns, parsed = self._columns(), record.values
        if why := self._why_misfit(parsed):
            raise ValueError(why)
        clocks = columns.times or self._time_of(record)
        at = self._time(record, clocks, together)
        timed = at is not None
        if self._was_timed is not None and self._was_timed != timed:
            raise ValueError(f"has {'no ' * self._was_timed}time, unlike the lines before")
        if record.part:
            self._report.columns.setdefault(f"all but {record.part}", "it is about the device and its network")
        stream, used = self._stream(record, clocks)
        values = self._named(parsed, columns) if columns.values else self._all(parsed, (*clocks, *used), record)
        self.timed = self._was_timed = timed
        self.times = clocks
        return Row(at, values, stream)

    def _why_misfit(self, parsed: Mapping[str, Any]) -> str:
        if (misfit := self._misfit()) is None:
            return ""
        keys = tuple(parsed)
        why = self._answers.get(keys)
        if why is None:
            why = misfit(_keys(parsed))
            if len(self._answers) < SAMPLE and not any(isinstance(value, dict | list) for value in parsed.values()):
                self._answers[keys] = why
        return why

    def _time_of(self, record: ObjectRecord) -> tuple[str, ...]:
        if record.time is not None:
            return ()
        values = self._columns().values
        found = guess([name for name in record.values if name not in values], TIMES)
        return () if found is None else (found,)

    def _time(self, record: ObjectRecord, clocks: tuple[str, ...], together: list[ObjectRecord]) -> float | None:
        columns = self._columns()
        if record.time is None and not clocks:
            return None
        parts = [self._cell(name, at_path(record.values, name)) for name in clocks]
        if clocks and all(part is None for part in parts):
            if columns.times:
                raise ValueError(f"has no time ({', '.join(clocks)})"[:120])
            return None
        cell = (
            self._cell("time", record.time)
            if record.time is not None and not clocks
            else " ".join(p or "" for p in parts)
        )
        name = " and ".join(clocks) or "time"
        if self._clock is None:
            sample = [cell or ""]
            for other in together[1:SAMPLE]:
                values = [at_path(other.values, name) for name in clocks] if clocks else [other.time]
                if all(isinstance(v, str | int | float) for v in values):
                    sample.append(" ".join(map(str, values)))
            self._clock = Clock(name, sample, columns.time_format, find_zone(columns.zone))
            if self._clock.note:
                self._report.note(self._clock.note)
        try:
            return self._clock(cell or "", record.stream or "")
        except ValueError as error:
            message = str(error)
            raise ValueError(message if message.startswith("column ") else f"column {name}: {message}") from None

    def _cell(self, name: str, parsed: Any) -> str | None:
        if parsed is NOTHING:
            return None
        if isinstance(parsed, bool) or not isinstance(parsed, str | int | float):
            raise ValueError(f"column {name}: {json.dumps(parsed)[:40]} is no time")
        return parsed if isinstance(parsed, str) else repr(parsed)

    def _stream(self, record: ObjectRecord, clocks: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
        columns = self._columns()
        if columns.wide and not columns.ids:
            return None, ()
        if record.stream is not None and not columns.ids:
            return check_name(record.stream.strip(), SERIES_CHARACTERS), ()
        names = columns.ids
        if not names:
            free = [n for n, v in record.values.items() if isinstance(v, str | int | float) and n not in clocks]
            found = guess([name for name in free if name not in columns.values], IDS)
            if found is None:
                return None, ()
            names = (found,)
        parsed = [at_path(record.values, name) for name in names]
        if any(part is NOTHING or part is None or isinstance(part, dict | list) for part in parsed):
            if columns.ids:
                raise ValueError(f"has no name ({', '.join(names)})"[:120])
            return None, names
        return check_name(".".join(str(part).strip() for part in parsed)), names

    def _named(self, parsed: Mapping[str, Any], columns: Columns) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        there = False
        for name in columns.values:
            value = at_path(parsed, name)
            if value is NOTHING:
                continue
            there = True
            try:
                found[name] = self._number(name, value, switches=True)
            except NumberError as error:
                shown = value if isinstance(value, str) else json.dumps(value)
                self._report.cell(self._documents.number, name, f"{shown[:40]!r} {error}")
        if not there:
            raise ValueError(f"has no value ({', '.join(columns.values)})"[:120])
        return found

    def _all(self, parsed: Mapping[str, Any], taken: tuple[str, ...], record: ObjectRecord) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        missing = faults = 0
        for name, value in numbers_in(parsed):
            if name in taken or (record.time is None and name in TIMES):
                continue
            if name == "entry_id":
                self._report.columns[name] = "it numbers the lines"
                continue
            if name in found:
                raise ValueError(f"has two values that are called {name[:60]!r}")
            state = record.alone and name == "state"
            try:
                if isinstance(value, bool) and not state:
                    raise NumberError("is no number")
                number = self._number(name, value, switches=state)
            except NumberError as error:
                shown = value if isinstance(value, str) else json.dumps(value)
                if name in self._sure:
                    self._report.cell(self._documents.number, name, f"{shown.strip()[:40]!r} {error}")
                    faults += 1
                else:
                    count, line, first = self._words.get(name, (0, self._documents.number, shown.strip()))
                    self._words[name] = (count + 1, line, first)
                continue
            if number is None and isinstance(value, str) and name not in self._sure:
                missing += 1
                continue
            if number is not None and name not in self._sure:
                count, line, first = self._words.get(name, (0, 0, ""))
                if count > FEW:
                    continue
                self._sure.add(name)
                if count:
                    del self._words[name]
                    self._report.cell(line, name, f"{first[:40]!r} is no number", count)
            found[name] = number
        if not found and not missing and not faults:
            words = next((n for n in self._words if n in parsed), None)
            raise ValueError("has no value" + (f": {words} is {self._words[words][2][:40]!r}" if words else ""))
        return found

    def _number(self, name: str, value: Any, switches: bool) -> float | None:
        numbers = self._numbers.get(name)
        if numbers is None:
            columns = self._columns()
            numbers = Numbers(columns.decimal, "", Sentinels.of(columns.missing), switches)
            self._numbers[name] = numbers
        if isinstance(value, str):
            return numbers(value)
        if value is None:
            return None
        if isinstance(value, bool):
            return float(value)
        if not isinstance(value, int | float):
            raise NumberError("is no number")
        try:
            number = float(value)
        except OverflowError:
            raise NumberError("is too large for a number") from None
        if number in numbers.sentinels.numbers or not abs(number) < LARGEST:
            return None
        return number
