"""The separator of a table's fields, and which line is the header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Dialect", "choose", "declared_separator", "find_header", "is_comment", "open_quote", "split"]

#: Candidates in order of preference for ties: apart from the comma, a separator is rarely part of a name.
SEPARATORS = "\t;|,"
BLANKS = " "
TOLD = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


class Dialect(NamedTuple):
    """How lines are split. ``wrapped``: every line is one quoted field that contains the fields."""

    separator: str = ","
    wrapped: bool = False


def declared_separator(line: str) -> str:
    """The separator that a spreadsheet's first line ``sep=;`` declares; empty for any other line."""
    found = TOLD.fullmatch(line)
    return found[1] if found else ""


def is_comment(line: str) -> bool:
    """``# ...``, unless ``#`` is the name of a column, or the beginning of a spreadsheet's error."""
    return line.startswith("#") and line[1:2] not in (",", ";", "\t", "|", "") and not line.startswith(("#N/A", "#NV"))


def choose(lines: Sequence[str]) -> Dialect:
    """The dialect of a table that begins with these lines."""
    best, found = (0.0, 0), ""
    for separator in SEPARATORS:
        widths = Counter(len(_loose(line, separator)) for line in lines)
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
        if width == 1 and len(widths) > 1:  # one field in most lines, but not in all
            width, count = max(((w, c) for w, c in widths.items() if w > 1), key=lambda item: (item[1], item[0]))
        score = (count / len(lines), 0) if width > 1 else (0.0, 0)
        if score > best:
            best, found = score, separator
    if found:
        return Dialect(found)
    first = _loose(lines[0], ",")
    if len(first) == 1 and lines[0].strip()[:1] == '"' and any(mark in first[0] for mark in SEPARATORS):
        inner = choose([next(iter(_loose(line, ",")), "") for line in lines])
        return Dialect(inner.separator, wrapped=True)
    words = {len(line.split()) for line in lines}
    if len(lines) > 1 and len(words) == 1 and words.pop() > 1:
        return Dialect(BLANKS)
    return Dialect(",")


def find_header(widths: Sequence[int]) -> int:
    """The index of the header: the first line, unless most lines after it are wider and equally wide: then the first of
    those. Lines before it are titles."""
    behind = widths[1:]
    if len(behind) < 2:
        return 0
    usual, count = Counter(behind).most_common(1)[0]
    if usual < 2 or widths[0] >= usual or 2 * count <= len(behind) or (widths[0] > 1 and widths[1] == usual):
        return 0
    return next(at for at, width in enumerate(widths) if width == usual)


def open_quote(line: str) -> bool:
    """Whether a quoted field continues after the end of the line."""
    return line.count('"') % 2 == 1


def split(line: str, dialect: Dialect) -> list[str]:
    """The fields of a line. Raises ``ValueError`` for bad quotes."""
    separator, wrapped = dialect
    if separator == BLANKS:
        return line.split()
    if '"' not in line:
        return line.split(separator)
    try:
        if wrapped:
            inner = next(csv.reader([line], delimiter=",", strict=True, skipinitialspace=True))
            line = inner[0] if len(inner) == 1 else line
        if "\n" in line:
            return next(csv.reader(line.splitlines(keepends=True), delimiter=separator, strict=True))
        return next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(_quotes(str(error))) from None
    except StopIteration:
        return []


def _quotes(error: str) -> str:
    if "expected after" in error:
        return "a quoted field goes on behind its closing quote: a quote inside a field is written twice"
    if "unexpected end" in error:
        return "a quote is never closed"
    return f"can't be cut into fields: {error}"


def _loose(line: str, separator: str) -> list[str]:
    try:
        return split(line, Dialect(separator))
    except ValueError:
        return line.split(separator)
