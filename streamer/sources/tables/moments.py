"""Parses moments as people and programs write them: ISO 8601 and variants, month names, AM and PM, either day order."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple

__all__ = [
    "CLOCK",
    "AmbiguousDateError",
    "Moment",
    "clock_only",
    "day_or_month_first",
    "has_clock",
    "moment",
    "read_format",
]

#: Which field of a date of numbers is the day.
DAY_FIRST, MONTH_FIRST, YEAR_FIRST = "day-first", "month-first", "year-first"
CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?:[:h](?P<minute>\d{2})(?:[:m](?P<second>\d{2})(?:[.,](?P<part>\d{1,12}))?)?)?s?"
    r"\s*(?P<half>[ap]\.?\s?m\b\.?)?",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"(?<![\d.])(?P<hour>\d{1,2})[:h](?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,:](?P<part>\d{1,12}))?)?(?!\d)"
    r"\s*(?P<half>[ap]\.?\s?m\b\.?)?|(?<!\d)(?P<hour12>\d{1,2})\s*(?P<half12>[ap]\.?m\b\.?)",
    re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})\s?([-/. ])\s?(\d{1,2})\s?\2\s?(\d{1,2})\.?")
_NUMBERS = re.compile(r"(\d{1,2})\s?([-/.])\s?(\d{1,2})\s?\2\s?(\d{4}|\d{2})\.?")
_DAY_NAMED = re.compile(r"(\d{1,2})(?:st|nd|rd|th|\.)?[\s-]*([^\W\d]{3,10})\.?[\s,-]*(\d{4}|\d{2})")
_NAMED_DAY = re.compile(r"([^\W\d]{3,10})\.?[\s-]*(\d{1,2})(?:st|nd|rd|th)?(?:[\s,-]+(\d{4}))?")
_YEAR_NAMED = re.compile(r"(\d{4})[\s-]([^\W\d]{3,10})\.?[\s-](\d{1,2})")
_WEEKDAY = re.compile(r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", re.IGNORECASE)
_COMPACT = re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})[T _-]?(\d{2})(\d{2})(\d{2})?(?:[.,](\d{1,9}))?")
_DAY = re.compile(r"(?:19|20)\d{6}")
_OFFSET = re.compile(r"(?:UTC|GMT)?\s*([+-])(\d{2}):?(\d{2})?(?::\d{2})?(?:\s*\[[\w/+-]+\]|\s*\(?\w+\)?)?")
_MONTHS = {
    name: number
    for number, names in enumerate(
        "jan january januar janv janvier ene enero gen gennaio|feb february februar févr février febrero febbraio"
        "|mar march märz mrz mars marzo maart mrt|apr april avr avril abr abril aprile"
        "|may mai mayo mag maggio mei|jun june juni juin junio giu giugno|jul july juli juil juillet julio lug luglio"
        "|aug august août aout ago agosto augustus|sep sept september septembre septiembre set settembre"
        "|oct october okt oktober octobre octubre ott ottobre|nov november novembre noviembre"
        "|dec december dez dezember déc décembre dic diciembre dicembre".split("|"),
        1,
    )
    for name in names.split()
}  # fmt: skip


class Moment(NamedTuple):
    """A parsed moment. ``local``: without a zone; ``zone``: ``None`` if the text names none. ``fraction``: the part of
    the last second that a ``datetime`` can't hold. ``carry``: whole seconds to add (24:00 and leap seconds)."""

    local: datetime
    zone: tzinfo | None
    fraction: float = 0.0
    carry: int = 0


class AmbiguousDateError(ValueError):
    """The text can be read as two different days."""


def moment(text: str, order: str = "") -> Moment:
    """Parse a moment. ``order``: ``day-first`` or ``month-first``, for numeric dates that do not begin with the year.
    Raises ``ValueError``; :class:`AmbiguousDateError` if ``order`` is needed."""
    text = text.strip()
    if text[4:5] == "-" and len(text) > 9:  # nearly all of them
        try:
            return _iso(text)
        except ValueError:
            pass
    match = _COMPACT.fullmatch(text)
    if match is not None:
        year, month, day, hour, minute, second, part = match.groups()
        return _made((int(year), int(month), int(day)), (int(hour), int(minute), int(second or 0), part or ""), None)
    if _DAY.fullmatch(text):
        return _made((int(text[:4]), int(text[4:6]), int(text[6:])), (0, 0, 0, ""), None)
    found = _TIME.search(text)
    if found is None:
        date, clock, rest = text.rstrip("T"), (0, 0, 0, ""), ""
        if "T" in text[8:]:  # ISO with hours alone, and its rarer forms
            return _iso(text)
    else:
        date, rest = text[: found.start()], text[found.end() :].strip()
        clock = _clock(found)
    date = _WEEKDAY.sub("", date.strip()).rstrip(" ,T_;").rstrip("t")
    if date[-1:] == ":":
        date = date[:-1]  # Apache's 01/May/2024:10:00:00
    if (year := re.fullmatch(r"(?:(.*\S)\s+)?(\d{4})", rest)) and not re.search(r"\d{4}", date):  # ctime's year
        date, rest = f"{date} {year[2]}", year[1] or ""
    return _made(_date(date, order), clock, _zone(rest))


def day_or_month_first(text: str) -> tuple[str, set[str]] | None:
    """For a numeric date that does not begin with a four-digit year: its separator, and the orders that it allows."""
    found = _TIME.search(text)
    date = text[: found.start()] if found else text
    match = _NUMBERS.fullmatch(_WEEKDAY.sub("", date.strip()).rstrip(" ,T"))
    if match is None:
        return None
    first, second = int(match[1]), int(match[3])
    orders = {DAY_FIRST} if second <= 12 and first <= 31 else set()
    orders |= {MONTH_FIRST} if first <= 12 and second <= 31 else set()
    if len(match[4]) == 2 and match[2] != "." and second <= 12 and 1 <= int(match[4]) <= 31:
        orders.add(YEAR_FIRST)
    return match[2], orders


def clock_only(text: str) -> bool:
    """Whether the text is a time of day without a date."""
    text = text.strip()
    found = _TIME.match(text)
    return found is not None and _zone_or_nothing(text[found.end() :].strip())


def has_clock(text: str) -> bool:
    """Whether the text contains a time of day, or is a number."""
    return _TIME.search(text) is not None or "T" in text or text.strip().replace(".", "").isdigit()


def read_format(text: str, pattern: str) -> Moment:
    """Parse by a ``strptime`` pattern. Raises ``ValueError``."""
    made = datetime.strptime(text.strip(), pattern)
    return Moment(made.replace(tzinfo=None), made.tzinfo)


def _iso(text: str) -> Moment:
    made = datetime.fromisoformat(text)
    return Moment(made.replace(tzinfo=None), made.tzinfo)


def _clock(match: re.Match[str]) -> tuple[int, int, int, str]:
    if match["hour12"]:
        hour, minute, second, part, half = int(match["hour12"]), 0, 0, "", match["half12"]
    else:
        hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
        part, half = match["part"] or "", match["half"]
    if half:
        if not 1 <= hour <= 12:
            raise ValueError("is no time of day")
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    return hour, minute, second, part


def _made(date: tuple[int, int, int], clock: tuple[int, int, int, str], zone: tzinfo | None) -> Moment:
    hour, minute, second, part = clock
    carry = 0
    if hour == 24 and not minute and not second:
        hour, carry = 0, 86400
    if second == 60:  # a leap second counts as the second after it
        second, carry = 59, carry + 1
    local = datetime(*date, hour, minute, second)
    return Moment(local, zone, float(f"0.{part}") if part else 0.0, carry)


def _date(text: str, order: str) -> tuple[int, int, int]:
    if match := _YEAR_FIRST.fullmatch(text):
        return int(match[1]), int(match[3]), int(match[4])
    if match := _NUMBERS.fullmatch(text):
        first, second, year = int(match[1]), int(match[3]), _year(match[4])
        if not order:
            raise AmbiguousDateError("may have the day or the month first")
        if order == YEAR_FIRST:
            return _year(match[1]), second, int(match[4])
        return (year, second, first) if order == DAY_FIRST else (year, first, second)
    if match := _DAY_NAMED.fullmatch(text):
        return _year(match[3]), _month(match[2]), int(match[1])
    if match := _YEAR_NAMED.fullmatch(text):
        return int(match[1]), _month(match[2]), int(match[3])
    if (match := _NAMED_DAY.fullmatch(text)) and match[3]:
        return int(match[3]), _month(match[1]), int(match[2])
    if match := re.fullmatch(r"(\d{1,2})/([^\W\d]{3})/(\d{4})", text):
        return int(match[3]), _month(match[2]), int(match[1])
    if _DAY.fullmatch(text):
        return int(text[:4]), int(text[4:6]), int(text[6:])
    if match := re.fullmatch(r"(\d{4})[-/](\d{1,2})", text):  # a month
        return int(match[1]), int(match[2]), 1
    made = datetime.fromisoformat(text)  # weeks and the rarer forms of ISO
    return made.year, made.month, made.day


def _year(text: str) -> int:
    year = int(text)
    return year if len(text) == 4 else year + (2000 if year < 70 else 1900)


def _month(name: str) -> int:
    if (found := _MONTHS.get(name.lower())) is None:
        raise ValueError(f"{name!r} is no month that is known here")
    return found


def _zone(text: str) -> tzinfo | None:
    if not text:
        return None
    if text.upper() in ("Z", "UTC", "GMT", "+0000 UTC"):
        return UTC
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise ValueError(f"the zone {text[:20]!r} is not known: an offset (+02:00), or --zone Europe/Berlin")
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


def _zone_or_nothing(text: str) -> bool:
    try:
        _zone(text)
    except ValueError:
        return False
    return True
