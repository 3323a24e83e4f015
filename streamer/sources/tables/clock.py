"""The time column: its format is guessed from the first cells; if they are ambiguous, the user has to give it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from streamer.sources import SourceError
from streamer.sources.tables.moments import (
    DAY_FIRST,
    MONTH_FIRST,
    YEAR_FIRST,
    AmbiguousDateError,
    Moment,
    clock_only,
    day_or_month_first,
    moment,
    read_format,
)
from streamer.sources.times import COMPACT, in_calendar, seconds, show_time, unit_of

__all__ = ["FORMATS", "Clock", "find_zone", "is_time", "number"]

UNIT_NAMES = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
#: Values of ``--time-format`` besides a ``strptime`` pattern.
FORMATS = ("iso", DAY_FIRST, MONTH_FIRST, YEAR_FIRST, "excel", *UNIT_NAMES)
#: Range of a spreadsheet's day numbers for [1982, 2064); as unix time they would be a morning in 1970.
DAYS = (30000.0, 60000.0)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPREADSHEET_EPOCH = 25569  # its number of 1 January 1970
REMEMBERED = 4096
_HOURS = re.compile(r"20\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])")
_ABBREVIATED = re.compile(r"(.*\d)\s+([A-Z]{2,5})")


def number(cell: str) -> float | None:
    """The cell as a plain number; ``None`` if it is not one."""
    try:
        found = None if "_" in cell else float(cell.replace("\u2212", "-"))
    except ValueError:
        return None
    return found if found is not None and math.isfinite(found) else None


def is_time(cell: str) -> bool:
    """Whether the cell can only be a time: not a plain number, unless it is written like a date."""
    cell = cell.strip()
    if COMPACT.fullmatch(cell) and len(cell) > 8:
        return True
    if len(cell) < 6 or number(cell) is not None:
        return False
    try:
        moment(cell)
    except AmbiguousDateError:
        return True
    except (ValueError, OverflowError):
        return False
    return True


def find_zone(name: str | None) -> tzinfo | None:
    """Raises :class:`SourceError`."""
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise SourceError(f"--zone {name!r} is not known: a name such as Europe/Berlin or UTC is needed") from None


class Clock:
    """Parses the cells of a time column. ``name``: of the column, for messages. ``sample``: its first cells.
    ``format``: one of ``FORMATS`` or a ``strptime`` pattern; empty: guessed from the sample. ``zone``: of times without
    a zone, ``None`` for UTC. ``note``: a remark for the user about the guess. Raises :class:`SourceError` if the sample
    is ambiguous."""

    def __init__(self, name: str, sample: Sequence[str], format: str = "", zone: tzinfo | None = None) -> None:
        self.name, self.note = name, ""
        self._zone, self._dst = zone or UTC, zone is not None
        self._unit: float | None = None
        self._excel, self._order, self._pattern = False, "", ""
        self._numbers: bool | None = None
        self._given = False
        self._last = math.inf
        self._known: dict[str, float] = {}
        self._folds: dict[str, tuple[datetime, int]] = {}
        if format:
            self._choose(format)
        elif cells := [cell.strip() for cell in sample if cell.strip()]:
            self._learn(cells)

    def __call__(self, cell: str, stream: str = "") -> float:
        """The cell as unix seconds. Raises ``ValueError`` that shows the cell. ``stream``: the reading's stream, for
        the hour that occurs twice when clocks are set back."""
        found = self._known.get(cell)
        if found is None:
            text = cell.strip()
            if self._numbers is None:
                self._learn([text])
            try:
                found = self._read(text, stream)
            except AmbiguousDateError:
                raise ValueError(self._asked(text)) from None
            except OverflowError:
                raise ValueError(f"{text[:40]!r} is no time") from None
            if not in_calendar(found):
                raise ValueError(f"{text[:40]!r} is no time")
            if not self._dst:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[cell] = found
        return found

    # -- the format ----------------------------------------------------------------------------------------------------

    def _choose(self, format: str) -> None:
        if format in UNIT_NAMES:
            self._unit, self._numbers, self._given = UNIT_NAMES[format], True, True
        elif format == "excel":
            self._excel = self._numbers = True
        elif format in (DAY_FIRST, MONTH_FIRST, YEAR_FIRST):
            self._order, self._numbers = format, False
        elif "%" in format:
            self._pattern, self._numbers = format, False
        elif format == "iso":
            self._numbers = False
        else:
            raise SourceError(
                f"--time-format {format!r} is not known: a pattern such as '%d.%m.%Y %H:%M', or {', '.join(FORMATS)}"
            )

    def _learn(self, cells: Sequence[str]) -> None:
        if all(map(_HOURS.fullmatch, cells)):  # as unix time it would be after 2033
            self._pattern, self._numbers = "%Y%m%d%H", False
            self.note = f"column {self.name}: {cells[0]} is taken for a day and an hour; --time-format s: seconds"
            return
        found = [value for cell in cells if not COMPACT.fullmatch(cell) and (value := number(cell)) is not None]
        self._numbers = 2 * len(found) >= len(cells) and bool(found)
        if self._numbers:
            if all(DAYS[0] <= value < DAYS[1] for value in found):
                self._excel = True
                self.note = (
                    f"column {self.name}: {cells[0]} is taken for a spreadsheet's number of a day, "
                    f"{show_time(_day(found[0], self._zone))}; --time-format s: seconds"
                )
            else:
                farthest = max(found, key=abs)
                self._unit = unit_of(farthest)
                self._last = farthest / self._unit
            return
        self._learn_order(cells)

    def _learn_order(self, cells: Sequence[str]) -> None:
        if all(map(clock_only, cells)):
            raise SourceError(
                f"column {self.name} holds times of day and no date, such as {cells[0][:40]!r}: --time DATE --time "
                f"{self.name} takes the date from another column"
            )
        dates = [(cell, *found) for cell in cells if (found := day_or_month_first(cell)) is not None]
        if not dates:
            return
        possible = set.intersection(*(orders for _, _, orders in dates))
        if len(possible) == 1:
            self._order = possible.pop()
        elif possible and all(mark == "." for _, mark, _ in dates):  # so written where the day comes first
            self._order = DAY_FIRST
        elif possible:
            raise SourceError(self._asked(dates[0][0]))
        elif any(not orders for _, _, orders in dates):
            self._order = DAY_FIRST  # some are no dates at all
        else:
            raise SourceError(f"column {self.name} has dates with the day first and with the month first")

    def _asked(self, cell: str) -> str:
        readings = []
        found = day_or_month_first(cell)
        orders = [o for o in (DAY_FIRST, MONTH_FIRST, YEAR_FIRST) if found is not None and o in found[1]]
        for order in orders:
            try:
                readings.append(f"{moment(cell, order).local:%Y-%m-%d}")
            except ValueError:
                continue
        return (
            f"column {self.name}: {cell[:40]!r} is {' or '.join(readings)}: say which with "
            f"--time-format {' or '.join(orders)} (or a pattern, '%d/%m/%Y %H:%M')"
        )

    # -- one cell ------------------------------------------------------------------------------------------------------

    def _read(self, text: str, stream: str) -> float:
        if self._pattern:
            try:
                return self._local(read_format(text, self._pattern), text, stream)
            except ValueError:
                raise ValueError(f"{text[:40]!r} is no time as {self._pattern!r}") from None
        value = None if COMPACT.fullmatch(text) and not (self._unit or self._excel) else number(text)
        if value is None:
            try:
                if self._dst and (named := _ABBREVIATED.fullmatch(text)) and named[2] not in ("UTC", "GMT", "AM", "PM"):
                    return self._abbreviated(named[1], named[2])
                parsed = moment(text, self._order)
            except AmbiguousDateError:
                raise
            except ValueError as error:
                why = f": {error}" if "known" in str(error) else ""
                raise ValueError(f"{text[:40]!r} is no time{why}") from None
            return self._local(parsed, text, stream)
        if self._excel:
            return _day(value, self._zone)
        own = unit_of(value)
        if self._given and self._unit:
            return value / self._unit
        if self._unit is None:
            self._unit = own
        found = value / own
        if own != self._unit and (abs(value) < 1e8 or abs(value / self._unit - self._last) < abs(found - self._last)):
            found = value / self._unit  # early in 1970, or before
        self._last = found
        return found

    def _local(self, found: Moment, text: str, stream: str) -> float:
        if found.zone is not None or not self._dst:
            return seconds(found, self._zone)
        first = found.local.replace(tzinfo=self._zone)
        offset, later = first.utcoffset(), first.replace(fold=1).utcoffset()
        assert offset is not None
        assert later is not None
        if offset == later:
            return seconds(found, self._zone)
        if offset < later:
            raise ValueError(f"{text[:40]!r} is no time in {self._zone}: its clocks were set forward over it")
        return seconds(found._replace(local=found.local.replace(fold=self._fold(found.local, stream))), self._zone)

    def _abbreviated(self, text: str, name: str) -> float:
        """A time followed by an abbreviation such as ``CEST`` or ``EST``, which must be a name of this zone."""
        local = moment(text, self._order).local
        for fold in (0, 1):
            found = local.replace(tzinfo=self._zone, fold=fold)
            if found.tzname() == name:
                return found.timestamp()
        raise ValueError(f"the zone {name!r} is not known in {self._zone} then")

    def _fold(self, local: datetime, stream: str) -> int:
        """Which of the two hours with the same name it is: the second once the stream's times have gone back in it."""
        before = self._folds.get(stream)
        fold = 0
        if before is not None and abs(local - before[0]) < timedelta(hours=3):
            fold = 1 if before[1] or local <= before[0] else 0
        if before is None and len(self._folds) >= REMEMBERED:
            self._folds.clear()
        self._folds[stream] = (local, fold)
        return fold


def _day(value: float, zone: tzinfo) -> float:
    """Unix seconds of a spreadsheet's day number, to the millisecond, which is its precision."""
    local = EPOCH.replace(tzinfo=None) + timedelta(milliseconds=round((value - SPREADSHEET_EPOCH) * 86400e3))
    return local.replace(tzinfo=zone).timestamp()
