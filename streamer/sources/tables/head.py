"""The beginning of a table: its separator, its header and its first rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from streamer.sources import SourceError
from streamer.sources.tables.clock import is_time, number
from streamer.sources.tables.encoding import Lines, TooLongError
from streamer.sources.tables.layouts import TIMES, key, suggested
from streamer.sources.tables.moments import clock_only
from streamer.sources.tables.numbers import NumberError, Numbers
from streamer.sources.tables.report import TableReport
from streamer.sources.tables.separators import (
    Dialect,
    choose,
    declared_separator,
    find_header,
    is_comment,
    open_quote,
    split,
)

__all__ = ["ANNOTATION", "COMMENTS", "SAMPLE", "SPANNED", "Head", "is_value", "read_head"]

SAMPLE = 1000  # lines
GATHER = 8  # lines of a pipe, at most, until two are alike
SPANNED = 8  # lines of one quoted field, at most
#: Annotation lines above the header in InfluxDB's tables.
ANNOTATION = re.compile(r'"?#(datatype|group|default)\b')
COMMENTS = "lines with comments (#)"

Line = tuple[int, str]


class Head(NamedTuple):
    """The beginning of a table. ``rows``: its first rows, whose lines are read again."""

    dialect: Dialect
    names: list[str]
    rows: list[list[str]]


def read_head(lines: Lines, report: TableReport, names: Sequence[str] = (), eager: bool = True) -> Head:
    """``names``: of the columns, for a table without a header. ``eager``: the whole input is available, so a long
    sample may be read. Raises :class:`SourceError`."""
    separator, comment, found = "", "", list[Line]()
    while len(found) < SAMPLE and (line := _next(lines, report, found, eager)) is not None:
        text = line[1]
        if not found and not separator and (separator := declared_separator(text)):
            continue
        if ANNOTATION.match(text):
            if found:  # the next of several tables
                lines.back([line])
                break
        elif is_comment(text) and not found:
            comment = text.lstrip("# ")
            report.leave(COMMENTS, f"line {line[0]}")
        elif text.strip():
            found.append(line)
    if not found:
        raise SourceError("has no line that can be read" if report.bad else "is empty")
    dialect = Dialect(separator) if separator else choose([text for _, text in found])
    found = _joined(found)
    rows = [_cells(text, dialect) for _, text in found]
    at = 0 if names else find_header([len(row) for row in rows])
    for number_of, text in found[:at]:
        report.leave("lines above the header", f"line {number_of}: {text.strip()[:40]!r}")
    header, first = _header(found[at], rows[at], dialect, names, comment, report)
    behind = rows[at + first :]
    if {len(row) for row in behind} == {len(header) + 1} and not names and _are_names([row[0] for row in behind]):
        header = ["", *header]  # rows have names, as R writes them
    lines.back(found[at + first :])
    return Head(dialect, header, behind)


def is_value(cell: str) -> bool:
    """Whether a cell is a number or a time, and so can't be a column's name."""
    cell = cell.strip()
    if not cell:
        return False
    if number(cell) is not None or is_time(cell) or clock_only(cell):
        return True
    try:
        return Numbers(lean=",")(cell) is not None
    except NumberError:
        return False


def _next(lines: Lines, report: TableReport, found: list[Line], eager: bool) -> Line | None:
    """The next line of the sample; ``None`` when the sample is complete."""
    if not eager and not lines.waiting and len(found) > 1:
        widths = {text.count(mark) for _, text in found[-2:] for mark in ",;\t|" if mark in text}
        if len(widths) == 1 or len(found) >= GATHER:
            return None
    try:
        text = lines.next()
    except TooLongError as error:
        if not found:
            raise SourceError(f"line {lines.number} {error}: that is no table") from None
        report.line(lines.number, str(error))
        return lines.number, ""
    return None if text is None else (lines.number, text)


def _joined(lines: list[Line]) -> list[Line]:
    """The lines, with a header that spans several lines joined to one."""
    number_of, text = lines[0]
    for more in range(1, min(SPANNED, len(lines))):
        if not open_quote(text):
            break
        text += "\n" + lines[more][1]
        if not open_quote(text):
            return [(number_of, text), *lines[more + 1 :]]
    return lines


def _cells(text: str, dialect: Dialect) -> list[str]:
    try:
        return split(text, dialect)
    except ValueError:
        return text.split(dialect.separator)


def _header(
    line: Line, cells: list[str], dialect: Dialect, names: Sequence[str], comment: str, report: TableReport
) -> tuple[list[str], int]:
    """The names of the columns, and whether the line is the header (1) or the first row (0)."""
    number_of, text = line
    try:
        header = _names(text, dialect)
    except ValueError as error:
        raise SourceError(f"line {number_of} is not a header: {error}") from None
    strange = next((cell for cell in header if is_value(cell)), None)
    if names:
        if strange is not None or len(header) != len(names):
            return list(names), 0
        report.note(f"line {number_of} is taken for a header and left out: --columns names the columns")
        return list(names), 1
    if strange is None or any(key(cell) in TIMES for cell in header):
        return header, 1
    with contextlib.suppress(ValueError):  # a comment need not be cut into fields
        commented = _names(comment, dialect) if comment else []
        if len(commented) == len(header) and not any(map(is_value, commented)):
            return commented, 0
    holds = f"line {number_of} holds {strange.strip()[:40]!r}, which names no column"
    raise SourceError(f"no header: give --columns {suggested(cells)} ({holds})")


def _names(text: str, dialect: Dialect) -> list[str]:
    return [" ".join(name.split()) for name in split(text, dialect)]


def _are_names(cells: list[str]) -> bool:
    """Whether the first column holds row names, as R writes them: row numbers, or words."""
    found = [number(cell) for cell in cells]
    if all(value is None for value in found):
        return not any(map(is_time, cells))
    steps = {b - a for a, b in pairwise(found) if a is not None and b is not None}
    return None not in found and steps == {1.0}
