"""InfluxDB's line protocol: ``measurement,tag=value field=1.5,other=2i 1630424257000000000``.

Every numeric field is a stream. A bad line is refused, the others are taken (Influx calls it a partial write).
"""

from __future__ import annotations

import math
import re

from streamer.serve.readings.parsed import BodyError, Collected, Names, Parsed, named
from streamer.sources.times import in_calendar

__all__ = ["parse"]

#: Parts of a line: the series with its escapes; fields, where a string may hold anything; a time. The quantifiers are
#: possessive, so there is no backtracking.
STRING = rb'"(?:[^"\\]|\\.)*+"'
KEY = rb"(?:[^\\ \n]|\\[^\n])++"
FIELDS = rb'(?:[^"\\ \n]|\\[^\n]|%s)++' % STRING
LINE = re.compile(rb"[ \r\t]*(%s) +(%s)(?: +(-?[0-9]+))?[ \r\t]*(?=\n|\Z)" % (KEY, FIELDS), re.DOTALL)
FIELD = re.compile(rb'((?:[^\\,= "]|\\.)+)=(%s|[^,"= \\]+)(?:,|$)' % STRING, re.DOTALL)
TAG = re.compile(rb"((?:[^\\,=]|\\.)+)=((?:[^\\,=]|\\.)+)(?:,|$)", re.DOTALL)
MEASUREMENT = re.compile(rb"((?:[^\\,]|\\.)+)(?:,|$)", re.DOTALL)
ESCAPE = re.compile(rb"\\([, =])")
NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
INTEGER = re.compile(rb"[+-]?[0-9]{1,20}[iu]")
TRUTHS = dict.fromkeys((b"t", b"T", b"true", b"True", b"TRUE"), 1.0)
TRUTHS |= dict.fromkeys((b"f", b"F", b"false", b"False", b"FALSE"), 0.0)
#: The form of most lines: no escapes, no strings, one space between the parts.
PLAIN = re.compile(
    rb'([^\\ \r\t\n"#,=][^\\ \r\t\n"]*+) ([^\\ \r\t\n",=]++=[-+.0-9eEiu]++(?:,[^\\ \r\t\n",=]++=[-+.0-9eEiu]++)*+)'
    rb"(?: (-?[0-9]{1,19}))?\r?(?:\n|\Z)"
)
LINE_BYTES = 2**20
STRING_BYTES = 2**16  # of a line with line ends in a string; Influx's own bound for a string
SEARCHES = 100  # failed searches for the end of such a string; afterwards every line ends at its line end

_names: Names[tuple[bytes, bytes]] = Names()


def parse(body: bytes, unit: float) -> Parsed:
    """Parse a body. ``unit``: of times, in seconds. A line without a time gets the time of arrival. Raises
    :class:`BodyError` if no line can be read."""
    found = Collected()
    begin, number, searches = 0, 1, 0
    while begin < len(body):
        if (plain := PLAIN.match(body, begin)) is not None and _plain(plain, unit, found):
            number, begin = number + 1, plain.end()
            continue
        end = body.find(b"\n", begin)
        text = body[begin : end if end >= 0 else len(body)]
        whole = text
        if (line := text.strip(b" \r\t")) and not line.startswith(b"#"):
            try:
                _line(line, unit, found)
            except ValueError as error:
                if b'"' in text and searches < SEARCHES:
                    whole = _through_string(body, begin, unit, found) or text
                    searches += whole is text
                if whole is text:
                    found.fault("malformed", f"line {number}: {error}")
        number += 1 + whole.count(b"\n")
        begin += len(whole) + 1
    if not found.names and found.faults and not found.skipped.keys() - {"malformed"}:
        raise BodyError(400, "; ".join(found.faults))
    return found.done()


def _plain(line: re.Match[bytes], unit: float, found: Collected) -> bool:
    """Read a line of the simple form. False: it has another form, and nothing was read."""
    series, fields, time = line.groups()
    readings = []
    try:
        for field in (fields,) if b"," not in fields else fields.split(b","):
            key, _, value = field.partition(b"=")
            if (name := _names[series, key]) is None:
                return False
            if value[-1] > ord("9"):
                if INTEGER.fullmatch(value) is None:
                    return False
                value = value[:-1]
            readings.append((name, float(value)))
    except ValueError:
        return False
    at = math.nan if time is None else int(time) * unit
    if (time is not None and not in_calendar(at)) or line.end() - line.start() > LINE_BYTES:
        return False
    for name, value in readings:
        found.add(name, at, value)
    return True


def _through_string(body: bytes, begin: int, unit: float, found: Collected) -> bytes | None:
    """The line that begins here, if it is valid with a string that contains line ends."""
    rest = body[begin : begin + STRING_BYTES]
    parts = LINE.match(rest)
    if parts is None or parts.end() == len(rest) < len(body) - begin:
        return None
    whole = parts.group()
    try:
        _line(whole.strip(b" \r\t"), unit, found)
    except ValueError:
        return None
    return whole


def _line(text: bytes, unit: float, found: Collected) -> None:
    if len(text) > LINE_BYTES:
        raise ValueError(f"is longer than {LINE_BYTES} bytes")
    parts = LINE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{_shown(text)} is not 'measurement,tag=value field=1.5 time'")
    series, fields, time = parts.groups()
    at = math.nan if time is None else int(time[:25]) * unit
    if time is not None and not in_calendar(at):
        raise ValueError(f"{_shown(time)} is not a time (is the precision right?)")
    readings, strings, begin = [], 0, 0
    while begin < len(fields):
        field = FIELD.match(fields, begin)
        if field is None:
            raise ValueError(f"{_shown(fields[begin:])} is not a field")
        begin = _behind(field, fields)
        key, value = field.groups()
        if value[:1] == b'"':
            strings += 1
            continue
        readings.append((_names[series, key] or _name(series, key), _number(value)))
    for name, value in readings:
        found.add(name, at, value)
    if strings:
        found.skipped["string"] += strings


def _number(value: bytes) -> float:
    if NUMBER.fullmatch(value):
        return float(value)
    if INTEGER.fullmatch(value):
        return float(value[:-1])
    if value in TRUTHS:
        return TRUTHS[value]
    raise ValueError(f"{_shown(value)} is not a number")


def _name(series: bytes, key: bytes) -> str:
    first = MEASUREMENT.match(series)
    if first is None:
        raise ValueError(f"{_shown(series)} has no measurement")
    tags, begin = [], _behind(first, series)
    while begin < len(series):
        tag = TAG.match(series, begin)
        if tag is None:
            raise ValueError(f"{_shown(series[begin:])} is not a tag")
        tags.append((_text(tag[1]), _text(tag[2])))
        begin = _behind(tag, series)
    field = _text(key)
    measurement = _text(first[1])
    name = named(measurement if field == "value" else f"{measurement}.{field}", tags)
    return _names.keep((series, key), name)


def _behind(part: re.Match[bytes], whole: bytes) -> int:
    """The start of the next part, after the comma, which must not be the end of the line."""
    if part.end() == len(whole) > part.end(part.lastindex or 0):
        raise ValueError(f"{_shown(whole)} ends with a comma")
    return part.end()


def _text(raw: bytes) -> str:
    try:
        return ESCAPE.sub(rb"\1", raw).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{_shown(raw)} is not UTF-8") from None


def _shown(raw: bytes) -> str:
    return repr(raw[:40].decode(errors="replace"))
