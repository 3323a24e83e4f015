"""Lines that are payloads, as ``mosquitto_sub`` prints them: numbers or JSON objects, with or without a topic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from streamer.names import check_name
from streamer.sensors.columns import Row
from streamer.sources.tables.clock import is_time
from streamer.sources.tables.documents import decode
from streamer.sources.tables.encoding import Lines, TooLongError
from streamer.sources.tables.layouts import Columns
from streamer.sources.tables.moments import clock_only, day_or_month_first
from streamer.sources.tables.numbers import MISSING, NumberError, Numbers, Sentinels
from streamer.sources.tables.report import TableReport
from streamer.sources.tables.shapes import numbers_in

__all__ = ["Plain", "is_plain"]

_TOPIC = re.compile(r"(?P<topic>\S[^{\[]*?)\s+(?P<payload>[{\[].*|\S+)")


def is_plain(line: str) -> bool:
    """Whether a first line is a payload rather than a header."""
    line = line.strip()
    if not line:
        return False
    if _number(line):
        return True
    found = _TOPIC.fullmatch(line)
    if found is None or "," in found["topic"] or ";" in line or "\t" in line or line[0] in "#<":
        return False
    payload = found["payload"]
    return (_number(payload) or payload[0] in "{[") and _is_topic(found["topic"])


def _is_topic(text: str) -> bool:
    """Whether words may be a topic, which may hold spaces: not if they begin as the line of a table does, with a time
    or a number, or if they are words without a level (``/``) and a number among them."""
    words = text.split()
    return not (_is_cell(words[0]) or ("/" not in text and any(map(_is_cell, words))))


def _is_cell(word: str) -> bool:
    return _number(word) or is_time(word) or clock_only(word) or day_or_month_first(word) is not None


class Plain:
    """Counterpart of :class:`~streamer.sources.tables.table.SourceTable` for payloads. Lines without a topic belong to
    the stream ``value``."""

    timed = False
    times: tuple[str, ...] = ()

    def __init__(self, lines: Lines, report: TableReport, columns: Callable[[], Columns]) -> None:
        self._lines, self._report, self._columns = lines, report, columns
        self.names = ["value"]
        self._topics = False
        self._numbers: dict[str, Numbers] = {}
        self._sure: set[str] = set()
        self._words: dict[str, str] = {}

    def begin(self, first: str) -> None:
        self._topics = not _number(first.strip())
        if not self._topics:
            self._report.note("lines without names are one stream, 'value' (mosquitto_sub -v gives each a name)")

    def rows(self) -> Iterator[Row]:
        while True:
            try:
                line = self._lines.next()
            except TooLongError as error:
                self._report.line(self._lines.number, str(error))
                continue
            if line is None:
                break
            if not (text := line.strip()):
                continue
            try:
                row = self._row(text)
            except (ValueError, RecursionError) as error:
                self._report.line(self._lines.number, str(error))
                continue
            if row is not None:
                yield row
        for name, word in self._words.items():
            self._report.columns[name] = f"words, such as {word[:30]!r}"

    def named(self, row: Row, column: str) -> str:
        if row.stream is None:
            return check_name(column)
        return row.stream if column == "value" else check_name(f"{row.stream}.{column}")

    def _row(self, text: str) -> Row | None:
        stream = None
        if self._topics:
            parts = _TOPIC.fullmatch(text)
            if parts is None:
                raise ValueError(f"{text[:40]!r} is no topic with a number or a JSON object behind it")
            stream, text = check_name(parts["topic"]), parts["payload"]
        if text[0] in "{[":
            (parsed,) = decode(text)
            found = parsed if isinstance(parsed, dict) else {str(at): inner for at, inner in enumerate(parsed)}
            return Row(None, self._object(found, stream), stream)
        name = stream or "value"
        try:
            value = self._numbers_of(name)(text)
        except NumberError as error:
            if name in self._sure or stream is None:
                raise ValueError(f"{text[:40]!r} {error}") from None
            self._words.setdefault(name, text)
            return None
        self._sure.add(name)
        self._words.pop(name, None)
        return Row(None, {"value": value}, stream)

    def _object(self, parsed: dict[str, object], stream: str | None) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for path, value in numbers_in(parsed):
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                continue
            try:
                found[path] = self._numbers_of(f"{stream}.{path}")(str(value))
            except NumberError:
                continue
        if not any(value is not None for value in found.values()):
            raise ValueError(f"has no number: {json.dumps(parsed)[:60]}")
        return {path: value for path, value in found.items() if value is not None}

    def _numbers_of(self, name: str) -> Numbers:
        if name not in self._numbers:
            columns = self._columns()
            self._numbers[name] = Numbers(columns.decimal, "", Sentinels.of(columns.missing))
        return self._numbers[name]


def _number(text: str) -> bool:
    if text.lower() in MISSING:
        return True
    try:
        return Numbers()(text) is not None
    except NumberError:
        return False
