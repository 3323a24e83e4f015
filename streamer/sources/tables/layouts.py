"""Roles of a table's columns: time, stream, values; found by the names that tools write, and by the first cells. Unused
columns are reported with the reason."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from streamer.sources import SourceError
from streamer.sources.tables.clock import is_time, number
from streamer.sources.tables.moments import clock_only, has_clock
from streamer.sources.tables.numbers import MISSING
from streamer.sources.times import COMPACT

__all__ = ["IDS", "TIMES", "ColumnRoles", "Columns", "guess", "guess_columns", "key", "suggested"]

TIMES = (
    "ts", "time", "timestamp", "date", "datetime", "_time", "ds", "date_time", "@timestamp", "time_utc",
    "timestamp_utc", "utc", "created_at", "last_changed", "last_updated", "last_seen", "received_at",
    "recorded_at", "measured_at", "observed_at", "sampled_at", "event_time", "timestamp_ms", "time_ms", "epoch",
    "unixtime", "unix_time", "unix", "local_time", "datum", "zeit", "zeitpunkt", "zeitstempel", "datum_zeit",
    "datum_uhrzeit", "date_heure", "fecha",
)  # fmt: skip
IDS = (
    "id", "sensor", "stream", "name", "series", "unique_id", "entity_id", "sensor_id", "series_id", "stream_id",
    "device_id", "item_id", "statistic_id", "device", "sensor_name", "device_name", "topic",
)  # fmt: skip
#: Names of columns that number the lines.
NUMBERED = frozenset(
    ("", "#", "index", "idx", "no", "no.", "nr", "nr.", "row", "rowid", "entry_id", "unnamed:_0", "level_0", "lfd")
)
CALENDAR = ("year", "month", "day", "hour", "minute", "second")
#: Columns of InfluxDB's answers that are not tags.
INFLUX = frozenset(("", "result", "table", "_start", "_stop", "_time", "_value", "_field", "_measurement"))


@dataclass(frozen=True)
class Columns:
    """The user's options for a table; everything else is guessed. ``id`` and ``time``: a column, or several that belong
    together. ``wide``: no column names the stream. ``partial``: some of ``values`` may be absent.
    ``only_missing``: a table without any number holds missing readings. ``names``: of the columns, for a table without
    a header. ``missing``: cells that stand for no value. ``decimal``: ``.`` or ``,``. ``time_format`` and ``zone``: as
    in :class:`Clock`."""

    id: str | tuple[str, ...] | None = None
    time: str | tuple[str, ...] | None = None
    values: tuple[str, ...] = ()
    wide: bool = False
    partial: bool = False
    only_missing: bool = False
    names: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    decimal: str = ""
    time_format: str = ""
    zone: str = ""

    @property
    def ids(self) -> tuple[str, ...]:
        return _several(self.id)

    @property
    def times(self) -> tuple[str, ...]:
        return _several(self.time)

    def whose(self, names: Sequence[str]) -> str | None:
        """The column that names the stream."""
        if self.id:
            return self.ids[0]
        return None if self.wide else guess([name for name in names if name not in self.values], IDS)


@dataclass
class ColumnRoles:
    """Positions of columns by role. ``left``: names of columns that are left out, and why."""

    time: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()
    values: dict[int, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    influx: bool = False


@lru_cache(4096)
def key(name: str) -> str:
    """A normalised name for comparison: ``Time (UTC)`` and ``time`` are equal."""
    bare = re.sub(r"\s*[(\[][^)\]]*[)\]]\s*$", "", name.strip())
    return re.sub(r"[\s./-]+", "_", (bare or name).strip().lower()).strip("_" if bare[:1] != "_" else " ")


def guess(names: Sequence[str], known: Sequence[str]) -> str | None:
    there = {key(name): name for name in reversed(names)}
    return next((there[name] for name in known if name in there), None)


def suggested(cells: Sequence[str]) -> str:
    """Suggested names for columns without a header, in the form of ``--columns``."""
    names: list[str] = []
    for cell in cells:
        if clock_only(cell) and names[-1:] == ["time"]:
            names[-1:] = ["date", "time"]
            continue
        kind = "time" if is_time(cell) or clock_only(cell) else "value" if number(cell) is not None else "id"
        if kind == "value" and not names and len(cells) > 1 and abs(number(cell) or 0) > 1e8:
            kind = "time"
        count = sum(name.rstrip("0123456789") == kind for name in names)
        names.append(kind if not count else f"{kind}{count + 1}")
    return ",".join(names)


def guess_columns(names: Sequence[str], columns: Columns, sample: Sequence[Sequence[str]]) -> ColumnRoles:
    """The roles of the columns. ``sample``: the first rows. Raises :class:`SourceError` if the columns don't fit."""
    absent = [name for name in columns.values if name not in names]
    if columns.partial and absent and len(absent) == len(columns.values):
        raise SourceError(f"has none of the columns {', '.join(absent)[:300]}: there are {', '.join(names)[:300]}")
    for wanted in (*columns.ids, *columns.times, *(() if columns.partial else absent)):
        if wanted not in names:
            raise SourceError(f"has no column {wanted!r}: there are {', '.join(names)[:300]}")
    roles = ColumnRoles(influx="_time" in names and "_value" in names and not columns.ids and not columns.values)
    if absent:
        roles.notes.append(f"no column {', '.join(absent)[:300]}: absent variables count as missing")
    roles.time = _time(names, columns, sample, roles)
    roles.ids = _ids(names, columns, sample, roles)
    taken = {*roles.time, *roles.ids}
    if columns.values:
        roles.values = {names.index(name): name for name in columns.values if name in names}
    else:
        for at, name in enumerate(names):
            if at not in taken and (why := _no_value(at, name, sample, roles)) is None:
                roles.values[at] = name
            elif at not in taken and why == "another time" and columns.times:
                roles.values[at] = name  # a user who names the time column knows what this one is
            elif at not in taken and why:
                roles.left[name or f"number {at + 1}"] = why
    used = [names[at] for at in (*roles.time, *roles.ids, *roles.values)]
    if twice := next((name for name in used if list(names).count(name) > 1), None):
        raise SourceError(f"the column {twice!r} is there twice: --columns gives each a name of its own")
    if not roles.values:
        raise SourceError(f"has no column of values, only {', '.join(names)[:300]}")
    if not roles.influx and not columns.wide:
        _check_one_series(names, sample, roles)
    return roles


def _several(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if not given else (given,) if isinstance(given, str) else given


def _cells(sample: Sequence[Sequence[str]], at: int) -> list[str]:
    found = (row[at].strip() for row in sample if at < len(row))
    return [cell for cell in found if cell.lower() not in MISSING]


def _day_and_part(keys: dict[str, int], sample: Sequence[Sequence[str]]) -> tuple[int, int] | None:
    """A date column, and a time column that holds a fraction of the day (spreadsheets), or 930 for half past nine."""
    if "date" not in keys or "time" not in keys:
        return None
    days, parts = _cells(sample, keys["date"]), _cells(sample, keys["time"])
    serial = _share(days, lambda cell: 30000 <= (number(cell) or 0) < 60000) > 0.9
    shares = serial and _share(parts, lambda cell: 0 <= (number(cell) or 0) < 1) > 0.9
    minutes = _share(days, _is_day) > 0.9 and _share(parts, _hhmm) > 0.9
    return (keys["date"], keys["time"]) if shares or minutes else None


def _is_day(cell: str) -> bool:
    return (is_time(cell) and not has_clock(cell)) or (len(cell) == 8 and COMPACT.fullmatch(cell) is not None)


def _hhmm(cell: str) -> bool:
    return cell.isdigit() and len(cell) <= 4 and int(cell) < 2400 and int(cell) % 100 < 60


def _is_number(cell: str) -> bool:
    return number(cell) is not None


def _share(cells: Sequence[str], test: Callable[[str], bool]) -> float:
    return sum(map(test, cells)) / len(cells) if cells else 0.0


def _time(
    names: Sequence[str], columns: Columns, sample: Sequence[Sequence[str]], roles: ColumnRoles
) -> tuple[int, ...]:
    if columns.times:
        return tuple(names.index(name) for name in columns.times)
    free = [name for name in names if name not in (*columns.values, *columns.ids)]
    if roles.influx:
        return (names.index("_time"),)
    keys = {key(name): names.index(name) for name in reversed(free)}
    if (found := guess(free, TIMES)) is not None:
        at = names.index(found)
        cells = _cells(sample, at)
        if cells and _share(cells, clock_only) > 0.5:
            days = [keys[name] for name in ("date", "day", "datum", "fecha") if name in keys and keys[name] != at]
            if days:
                return days[0], at
        clocks = [keys[name] for name in ("time", "uhrzeit", "zeit", "heure", "hora", "clock") if name in keys]
        if clocks and clocks[0] != at and _share(_cells(sample, clocks[0]), clock_only) > 0.5:
            return at, clocks[0]
        if (both := _day_and_part(keys, sample)) is not None:
            return both
        hour = next((keys[name] for name in ("hour", "hr", "stunde", "heure") if name in keys), None)
        if hour is not None and not _share(cells, has_clock) and _share(_cells(sample, hour), str.isdigit) > 0.9:
            roles.notes.append(f"the time is taken from {found} and {names[hour]}")
            return at, hour
        return (at,)
    parts = tuple(keys[name] for name in CALENDAR if name in keys)
    if "year" in keys and len(parts) == 1 + CALENDAR.index(key(names[parts[-1]])):
        years, all_of_it = _cells(sample, parts[0]), [cell for at in parts for cell in _cells(sample, at)]
        if _share(years, lambda cell: 1000 <= (number(cell) or 0) < 3000) > 0.9 and _share(all_of_it, _is_number) > 0.9:
            roles.notes.append(f"the time is taken from {', '.join(names[at] for at in parts)}")
            return parts
    for at, name in enumerate(names):
        cells = _cells(sample, at)
        if name in free and cells and _share(cells, is_time) > 0.9:
            if key(name) not in NUMBERED:
                roles.notes.append(f"the time is taken from {name!r}")
            return (at,)
    return ()


def _ids(
    names: Sequence[str], columns: Columns, sample: Sequence[Sequence[str]], roles: ColumnRoles
) -> tuple[int, ...]:
    if columns.ids:
        return tuple(names.index(name) for name in columns.ids)
    if columns.wide:
        return ()
    if roles.influx:
        return tuple(at for at, name in enumerate(names) if name not in INFLUX or name in ("_measurement", "_field"))
    free = [name for at, name in enumerate(names) if at not in roles.time and name not in columns.values]
    for known in IDS:
        if (found := guess(free, (known,))) is None:
            continue
        at = names.index(found)
        if _counts(names, at, sample, roles, 5):
            roles.left[found] = "it numbers the lines"
            continue
        return (at,)
    return ()


def _counts(names: Sequence[str], at: int, sample: Sequence[Sequence[str]], roles: ColumnRoles, least: int) -> bool:
    """Whether the column only numbers the lines: it grows by one with each, and each has a different time."""
    rows = [row for row in sample if at < len(row)]
    found = [value for row in rows if (value := number(row[at])) is not None and value.is_integer()]
    if len(rows) < least or len(found) < len(rows):
        return False
    steps = {later - earlier for earlier, later in pairwise(found)}
    moments = [tuple(row[t] for t in roles.time if t < len(row)) for row in rows]
    return steps <= {1.0} and (not roles.time or len(set(moments)) == len(moments))


def _no_value(at: int, name: str, sample: Sequence[Sequence[str]], roles: ColumnRoles) -> str | None:
    """Why a column does not hold values; ``None`` if it does."""
    if roles.influx:
        return None if name == "_value" else ""
    if roles.left.get(name):
        return roles.left[name]
    if key(name) in NUMBERED and _counts(names=(), at=at, sample=sample, roles=roles, least=1):
        return "it numbers the lines"
    if name == "" and not _cells(sample, at):
        return ""  # behind a separator at the end of the lines
    if name == "":
        return "it has no name"
    if key(name) in TIMES:
        return "another time" if roles.time else None
    cells = _cells(sample, at)
    if cells and _share(cells, is_time) > 0.9:
        return "another time"
    return None


def _check_one_series(names: Sequence[str], sample: Sequence[Sequence[str]], roles: ColumnRoles) -> None:
    """Raises :class:`SourceError` if an unused column distinguishes lines of the same time, as a stream's name
    would."""
    if not roles.time:
        return
    width = max((*roles.time, *roles.ids, *roles.values)) + 1
    groups: dict[tuple[str, ...], list[Sequence[str]]] = defaultdict(list)
    for row in sample:
        if len(row) >= width:
            groups[tuple(row[at] for at in (*roles.time, *roles.ids))].append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    if not several or sum(map(len, several)) < 0.3 * len(sample):
        return
    for at, name in enumerate(names):
        if at in roles.time or at in roles.ids or not name:
            continue
        apart = [[row[at].strip() for row in rows if at < len(row)] for rows in several]
        if any(len(set(cells)) < len(cells) for cells in apart):
            continue
        every = {cell for cells in apart for cell in cells}
        words = all(number(cell) is None for cell in every)
        alike = len({frozenset(cells) for cells in apart}) == 1 and len(apart) > 1
        whole = all((value := number(cell)) is not None and value == int(value) for cell in every)
        if words or (alike and whole):
            shown = " and ".join(apart[0][:2])
            asked = " ".join(f"--id {names[i]}" for i in (*roles.ids, at))
            raise SourceError(
                f"several lines have the time {several[0][0][roles.time[0]]!r}, and column {name!r} distinguishes them "
                f"({shown[:60]}): {asked}"
            )
