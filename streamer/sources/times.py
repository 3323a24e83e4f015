"""When a reading was taken: the ways in which files say it, all of them to unix seconds, UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime

__all__ = ["in_calendar", "parse_time", "show_time"]

#: A plain number is in seconds, and beyond these (the year 5138 in seconds, 1973 in the next unit) in milli-, micro-
#: and nanoseconds.
UNITS = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
#: ``20160701`` is a day, as in tables of the weather, not a second of 1970.
DAY = re.compile(r"(19|20)\d{6}")
EARLIEST = datetime(1, 1, 2, tzinfo=UTC).timestamp()
LATEST = datetime(9999, 12, 30, tzinfo=UTC).timestamp()


def parse_time(said: str | int | float) -> float:
    """ISO 8601 (without a zone: UTC) or a number. Raises ``ValueError``."""
    if isinstance(said, str):
        said = said.strip()
        try:
            number = None if DAY.fullmatch(said) or "_" in said else float(said)
        except ValueError:
            number = None
        if number is None:
            try:
                moment = datetime.fromisoformat(said.replace("/", "-"))
            except ValueError:
                raise ValueError(f"{said[:40]!r} is not a time (ISO 8601 or unix time)") from None
            number = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        else:
            number = _seconds(number)
    else:
        number = _seconds(float(said))
    if not in_calendar(number):
        raise ValueError(f"{str(said)[:40]!r} is not a time (ISO 8601 or unix time)")
    return number


def in_calendar(time: float) -> bool:
    """Whether these unix seconds are a time that can be shown, a step or so either way; NaN is none."""
    return EARLIEST < time < LATEST


def _seconds(number: float) -> float:
    size = abs(number)
    return number / next((unit for limit, unit in UNITS if size >= limit), 1.0)


def show_time(time: float) -> str:
    """ISO 8601 in UTC, with milliseconds where there are any."""
    moment = datetime.fromtimestamp(round(time, 3), UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")
