"""Times of readings in the formats that files use, to unix seconds, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo

from streamer.sources.tables.moments import AmbiguousDateError, Moment, moment

__all__ = ["COMPACT", "UNITS", "in_calendar", "parse_time", "seconds", "show_time", "unit_of"]

#: A plain number is in seconds, and beyond these (the year 5138 in seconds, 1973 in the next unit) in milli-, micro-
#: and nanoseconds.
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
#: ``20160701`` is a day, as in tables of the weather, not a second of 1970; ``20160701120000`` a moment of it.
COMPACT = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d([0-5]\d)?)?")
EARLIEST = datetime(1, 1, 2, tzinfo=UTC).timestamp()
LATEST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def parse_time(given: str | int | float) -> float:
    """ISO 8601 (without a zone: UTC) or a number. Raises ``ValueError``."""
    if isinstance(given, str):
        given = given.strip()
        try:
            number = None if COMPACT.fullmatch(given) or "_" in given else float(given)
        except ValueError:
            number = None
        if number is None:
            try:
                number = seconds(moment(given))
            except AmbiguousDateError:
                raise ValueError(f"{given[:40]!r} is not a time: the day or the month may come first") from None
            except (ValueError, OverflowError):
                raise ValueError(f"{given[:40]!r} is not a time (ISO 8601 or unix time)") from None
        else:
            number /= unit_of(number)
    else:
        number = float(given)
        number /= unit_of(number)
    if not in_calendar(number):
        raise ValueError(f"{str(given)[:40]!r} is not a time (ISO 8601 or unix time)")
    return number


def seconds(found: Moment, zone: tzinfo = UTC) -> float:
    """Unix time of a moment. ``zone``: for a moment without a zone of its own."""
    whole = found.local.replace(tzinfo=found.zone or zone)
    return whole.timestamp() + found.carry + found.fraction


def in_calendar(time: float) -> bool:
    """Whether these unix seconds, give or take a step, are within the calendar of ``datetime``; false for NaN."""
    return EARLIEST < time < LATEST


def unit_of(number: float) -> float:
    """Units per second of a unix time, guessed by its size."""
    size = abs(number)
    return next((unit for limit, unit in UNITS if size >= limit), 1.0)


def show_time(time: float) -> str:
    """ISO 8601 in UTC, with milliseconds where there are any."""
    found = datetime.fromtimestamp(round(time, 3), UTC)
    return found.isoformat(timespec="milliseconds" if found.microsecond else "seconds").replace("+00:00", "Z")
