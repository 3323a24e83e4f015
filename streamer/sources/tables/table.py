"""CSV and similar tables: a header, then a line for each time: wide (a column is a stream) or long (a column names it).

A line or cell that can't be read is reported with its line number, counted and left out; the rest is used. A quoted
field may span lines only if the joined line has as many fields as the header, so that one stray quote does not swallow
the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from streamer.names import NameRefusedError, check_name, series_name
from streamer.sensors.columns import Row
from streamer.sources import SourceError
from streamer.sources.tables.clock import Clock, find_zone, number
from streamer.sources.tables.encoding import Lines, TooLongError
from streamer.sources.tables.head import ANNOTATION, COMMENTS, SPANNED, is_value, read_head
from streamer.sources.tables.layouts import CALENDAR, TIMES, ColumnRoles, Columns, guess_columns, key
from streamer.sources.tables.numbers import MISSING, NO_NUMBER, SWITCHES, NumberError, Numbers, Sentinels, evidence
from streamer.sources.tables.report import TableReport
from streamer.sources.tables.separators import Dialect, is_comment, open_quote, split

__all__ = ["SourceTable", "stream_of"]

#: Most words before the first number of a column that count as unreadable values.
FEW = 10
QUOTES = '" '
MIDNIGHT = re.compile(r"[ T]00:00(:00([.,]0+)?)?$")


@dataclass(slots=True)
class _Column:
    """A column of values. ``sure``: it has had numbers. ``words``: cells without a number before the first one."""

    name: str
    numbers: Numbers
    sure: bool
    words: int = 0
    first: str = ""
    at: int = 0  # line of the first


class SourceTable:
    """``eager``: the whole input is available, so a long sample may be read. :meth:`begin` finds the ``names`` of the
    columns; :attr:`columns` may be set before :meth:`rows`, which sets ``timed`` and ``used``."""

    def __init__(
        self,
        lines: Lines,
        report: TableReport,
        columns: Callable[[], Columns],
        eager: bool,
        misfit: Callable[[], Callable[[Collection[str]], str] | None] = lambda: None,
    ) -> None:
        self._lines, self._report, self._columns, self._eager = lines, report, columns, eager
        self._misfit = misfit
        self.names: list[str] = []
        self.timed = True
        self.times: tuple[str, ...] = ()
        self._dialect = Dialect()
        self._clock: Clock | None = None
        self._roles = ColumnRoles()
        self._values: list[tuple[int, _Column]] = []
        self._sample: list[list[str]] = []
        self._least, self._alone = 0, False

    def begin(self, names: Sequence[str] = ()) -> None:
        """Find the separator and the header; the lines after it are read again. ``names``: the columns of a table
        without a header. Raises :class:`SourceError`."""
        self._dialect, self.names, self._sample = read_head(self._lines, self._report, names, self._eager)

    # -- what the columns are ------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        columns, report = self._columns(), self._report
        if (misfit := self._misfit()) is not None and (
            why := misfit(self.names)
        ):  # another header: its lines are of another kind
            raise SourceError(f"line {self._lines.number} {why}")
        roles = self._roles = guess_columns(self.names, columns, self._sample)
        for note in roles.notes:
            report.note(note)
        report.columns.update({name: why for name, why in roles.left.items() if why})
        self.times = tuple(self.names[at] for at in roles.time)
        self.timed = bool(roles.time)
        self._clock = None
        if roles.time:
            width = max(roles.time)
            sample = [self._moment(row) for row in self._sample if len(row) > width]
            zone = find_zone(columns.zone)
            self._clock = Clock(" and ".join(self.times), sample, columns.time_format, zone)
            if self._clock.note:
                report.note(self._clock.note)
        self._values = []
        sentinels, home = Sentinels.of(columns.missing), "entity_id" in self.names
        marks: dict[int, set[str]] = {}
        for at in roles.values:
            marks[at] = evidence(row[at] for row in self._sample if at < len(row))
        common = set().union(*marks.values()) if marks else set()
        for at, name in roles.values.items():
            proved = marks[at] or common
            decimal = columns.decimal or (next(iter(proved)) if len(proved) == 1 else "")
            switches = bool(columns.values) or (home and name == "state")
            lean = "," if self._dialect.separator == ";" and len(proved) < 2 else ""
            numbers = Numbers(decimal, lean, sentinels, switches)
            column = _Column(name, numbers, bool(columns.values))
            if not roles.ids and not _is_name(name):
                report.columns[name[:40]] = "it is no name"
                continue
            if column.sure or not self._holds_words(column, at):
                self._values.append((at, column))
        if self._eager and columns.only_missing:
            self._trust_missing()
        if not self._values and roles.values:
            raise SourceError(f"has no column of numbers: {'; '.join(report.left_out())}")
        named = [at for at, name in enumerate(self.names) if name]
        self._least = max(named, default=-1) + 1
        self._alone = len(roles.values) == 1

    def _trust_missing(self) -> None:
        """If there are only missing values, they are readings, as ``null`` is in JSON. Of several columns only those
        that say so: an empty one may be of remarks."""
        said = []
        for at, column in self._values:
            cells = [row[at].strip() for row in self._sample if at < len(row)]
            given = column.numbers
            reader = Numbers(given.decimal, given.lean, given.sentinels, given.switches)
            try:
                if any(reader(cell) is not None for cell in cells):
                    return
            except NumberError:
                return
            if any(cells) or (cells and len(self._values) == 1):
                said.append(column)
        for column in said:
            column.sure = True

    def _holds_words(self, column: _Column, at: int) -> bool:
        """Whether most of the first cells are words; if not, and there are numbers, the column becomes ``sure``."""
        reader = Numbers(column.numbers.decimal, column.numbers.lean, column.numbers.sentinels, column.numbers.switches)
        found = words = 0
        first = ""
        for row in self._sample:
            if at >= len(row):
                continue
            try:
                found += reader(row[at]) is not None
            except NumberError as error:
                if str(error) != NO_NUMBER:  # it is one, or two
                    column.sure = True
                    return False
                words += 1
                first = first or row[at].strip()
        column.sure = found >= words and found > 0 and words > 0  # else from the first number on
        if words > found and words > (0 if self._eager else FEW):
            self._left(column.name, first)
            return True
        return False

    def _left(self, name: str, word: str) -> None:
        more = f"; --value {name} reads it as 1 and 0" if word.lower() in SWITCHES else ""
        self._report.columns[name] = f"words, such as {word.strip(QUOTES)[:30]!r}{more}"

    # -- lines ---------------------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """One row for each line. Raises :class:`SourceError`."""
        self._plan()
        lines, report, first = self._lines, self._report, True
        while True:
            try:
                text = lines.next()
            except TooLongError as error:
                report.line(lines.number, str(error))
                continue
            if text is None:
                break
            if not text or text.isspace():
                continue
            if text[0] in '#"' and self._aside(text):
                continue
            try:
                cells = self._line(text)
                if self._is_header(cells) or (first and self._is_second_header(cells)):
                    continue
                row = self._row(cells)
            except SourceError:
                raise
            except (ValueError, OverflowError) as error:
                report.line(lines.number, str(error))
                continue
            finally:
                first = False
            yield row
        for _, column in self._values:
            if column.words:
                self._left(column.name, column.first)

    def _aside(self, text: str) -> bool:
        """Whether a line is a comment, or the beginning of InfluxDB's next table."""
        if ANNOTATION.match(text):
            self._again()
            return True
        if is_comment(text):
            self._report.leave(COMMENTS, f"line {self._lines.number}")
            return True
        return False

    def _again(self) -> None:
        self.begin()
        self._plan()

    def _line(self, text: str) -> list[str]:
        try:
            cells = split(text, self._dialect)
        except ValueError:
            if not open_quote(text) or (joined := self._spanned(text)) is None:
                raise
            cells = joined
        width = len(self.names)
        if len(cells) != width:
            if len(cells) < width and open_quote(text) and (joined := self._spanned(text)) is not None:
                return joined
            if len(cells) > width and not any(cell.strip() for cell in cells[width:]):
                return cells[:width]
            if self._least <= len(cells) < width:
                return cells + [""] * (width - len(cells))
            why = (
                ": a decimal comma needs quotes around its number" if len(cells) == 2 * width - 1 and width > 1 else ""
            )
            raise ValueError(f"has {len(cells)} fields, the header has {width}{why}")
        return cells

    def _spanned(self, text: str) -> list[str] | None:
        """The fields of a line that continues on the next ones; ``None`` if it does not."""
        taken: list[tuple[int, str]] = []
        number = self._lines.number
        while len(taken) < SPANNED:
            try:
                more = self._lines.next()
            except TooLongError:
                break
            if more is None:
                break
            taken.append((self._lines.number, more))
            text += "\n" + more
            if not open_quote(text):
                try:
                    cells = split(text, self._dialect)
                except ValueError:
                    break
                if len(cells) == len(self.names):
                    return cells
                break
        self._lines.back(taken)
        self._lines.number = number
        return None

    def _is_header(self, cells: list[str]) -> bool:
        """Whether a line is a repeated header, which is left out; one with other names applies to the lines after
        it."""
        times = self._roles.time
        if (
            not times
            or cells[times[0]][:1].isdigit()
            or is_value(cells[times[0]])
            or (self._clock and self._readable(cells))
        ):
            return False
        found = [" ".join(cell.split()) for cell in cells]
        if found == self.names:
            self._report.leave("lines that repeat the header", f"line {self._lines.number}")
            return True
        if not any(key(name) in TIMES for name in found) or any(map(is_value, found)):
            return False
        self._report.note(f"line {self._lines.number} is another header: {', '.join(found)[:200]}")
        self.names, self._sample = found, []
        self._plan()
        return True

    def _is_second_header(self, cells: list[str]) -> bool:
        """Whether a line below the header holds units or other words."""
        if any(map(is_value, cells)) or not any(is_value(cell) for row in self._sample[1:3] for cell in row):
            return False
        if self._clock and self._readable(cells):
            return False
        if all(cell.strip().lower() in MISSING for cell in cells):
            return False
        shown = ",".join(cells)[:40]
        self._report.leave(
            "lines below the header, without a time or a number,", f"line {self._lines.number}: {shown!r}"
        )
        return True

    def _readable(self, cells: list[str]) -> bool:
        assert self._clock is not None
        try:
            self._clock(self._moment(cells))
        except ValueError:
            return False
        return True

    def _row(self, cells: list[str]) -> Row:
        stream = self._stream(cells) if self._roles.ids else None
        time = None
        if self._clock is not None:
            try:
                time = self._clock(self._moment(cells), stream or "")
            except ValueError as error:
                message = str(error)
                raise ValueError(
                    message if message.startswith("column ") else f"column {self._clock.name}: {message}"
                ) from None
        found: dict[str, float | None] = {}
        for at, column in self._values:
            try:
                value = column.numbers(cells[at])
            except NumberError as error:
                if column.sure:
                    self._report.cell(self._lines.number, column.name, f"{cells[at].strip()[:40]!r} {error}")
                else:
                    column.words += 1
                    if column.words == 1:
                        column.first, column.at = cells[at].strip(), self._lines.number
                continue
            if not column.sure:
                if value is None or column.words > FEW:
                    continue
                column.sure = True
                if column.words:
                    self._report.cell(column.at, column.name, f"{column.first[:40]!r} is no number", column.words)
                    column.words = 0
            found[column.name] = value
        return Row(time, found, stream)

    def _moment(self, cells: Sequence[str]) -> str:
        times = self._roles.time
        if len(times) == 1 and key(self.names[times[0]]) != CALENDAR[0]:
            return cells[times[0]]
        parts = [cells[at].strip() for at in times]
        if len(times) == 2 and key(self.names[times[0]]) != CALENDAR[0]:
            day, clock = parts
            if clock.isdigit() and len(clock) < 5:
                named = key(self.names[times[1]]) != "time" and len(clock) < 3  # an hour, else 930 is 9:30
                clock = f"{clock}:00" if named else f"{clock.zfill(4)[:2]}:{clock.zfill(4)[2:]}"
            elif (serial := number(day)) is not None and (part := number(clock)) is not None and serial < 1e5:
                return repr(serial + part)
            return f"{MIDNIGHT.sub('', day)} {clock}"
        if all(key(self.names[at]) in CALENDAR for at in times):
            date = {key(self.names[at]): part for at, part in zip(times, parts, strict=True)}
            year, month, day, hour, minute, second = (
                _whole(date.get(name, "1" if name in CALENDAR[1:3] else "0")) for name in CALENDAR
            )
            return f"{year:0>4}-{month:0>2}-{day:0>2} {hour:0>2}:{minute:0>2}:{second:0>2}"
        return " ".join(parts)

    def _stream(self, cells: list[str]) -> str:
        ids = self._roles.ids
        if self._roles.influx:
            labels = {self.names[at]: cells[at].strip() for at in ids}
            return stream_of(labels)
        stream = ".".join(cells[at].strip() for at in ids)
        if not stream.strip("."):
            raise ValueError(f"column {self.names[ids[0]]}: {stream!r} names no stream")
        return check_name(stream)

    def named(self, row: Row, column: str) -> str:
        """The stream's name for a value of a row."""
        if row.stream is None:
            return column
        if self._alone or column.lower() in ("value", "state") or self._roles.influx:
            return row.stream
        return check_name(f"{row.stream}.{column}")


def stream_of(labels: dict[str, str]) -> str:
    """The stream's name from InfluxDB's columns, as for its line protocol: ``measurement.field{tag="..."}``."""
    measurement, field = labels.pop("_measurement", ""), labels.pop("_field", "")
    metric = ".".join(part for part in (measurement, "" if field == "value" and measurement else field) if part)
    return series_name(metric or "value", labels.items())


def _whole(cell: str) -> str:
    found = number(cell)
    return cell if found is None or found != int(found) else str(int(found))


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except NameRefusedError:
        return False
    return True
