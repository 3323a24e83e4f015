"""JSON values from lines: one a line, several on a line, or one over many lines."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from streamer.json_words import json_trouble
from streamer.sources import SourceError
from streamer.sources.tables.encoding import Lines, TooLongError
from streamer.sources.tables.report import TableReport

__all__ = ["DOCUMENT_BYTES", "Documents", "decode"]

#: Most characters of a value that spans several lines.
DOCUMENT_BYTES = 64 * 2**20
#: Lines that are tried one by one if the value that they seemed to form has no end.
AGAIN = 1000
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\]]')
_WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|[-+]?\b(?:nan|inf|infinity|None|True|False)\b', re.IGNORECASE)
_PYTHON = {"none": "null", "true": "true", "false": "false"}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"has {twice[:40]!r} twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def decode(text: str) -> list[Any]:
    """The values in a text, one or several. ``nan`` and Python's literals are read, too. Raises ``ValueError``."""
    try:
        return _mended(text)
    except ValueError as error:
        why = json_trouble(error)
        raise ValueError(why if why == str(error) else f"can't be read: {why}") from None


def _mended(text: str) -> list[Any]:
    try:
        return _values(text)
    except json.JSONDecodeError as error:
        mended = _WORDS.sub(lambda m: m[0] if m[0][0] == '"' else _PYTHON.get(m[0].lower(), "null"), text)
        if mended != text:
            try:
                return _values(mended)
            except json.JSONDecodeError:
                pass
        why = "its names need double quotes" if text[:2] == "{'" else f"{error.msg} at character {error.pos + 1}"
        raise ValueError(f"is not JSON: {why}") from None
    except RecursionError:
        raise ValueError("is not JSON: it is nested too deeply") from None


def _values(text: str) -> list[Any]:
    found, at, end = [], 0, len(text)
    while at < end:
        value, at = _DECODER.raw_decode(text, at)
        found.append(value)
        while at < end and text[at] in " \t\r\n\x1e,":
            at += 1
    return found


class Documents:
    """Values from ``lines``. ``number``: the line on which the last value begins. Bad lines are counted in
    ``report``."""

    def __init__(self, lines: Lines, report: TableReport) -> None:
        self._lines, self._report = lines, report
        self.number = 0
        lines.most = max(lines.most, DOCUMENT_BYTES)

    def __iter__(self) -> Iterator[Any]:
        inside = False  # of an array, whose elements are values of their own
        while (line := self._next()) is not None:
            text = line.strip().lstrip("\x1e")
            if inside:
                text = text.lstrip(",").lstrip()
                if text[:1] == "]":
                    inside, text = False, text[1:].strip()
            if not text:
                continue
            self.number = self._lines.number
            try:
                yield from decode(text.rstrip(",") if inside else text)
                continue
            except ValueError as error:
                found = error
            left = _open_brackets(text)
            if not inside and text[0] == "[" and left:
                inside = True
                self._lines.back([(self.number, text[1:])])
                continue
            if inside and left is None and text[-1] == "]":  # the last element, with the end behind it
                inside = False
                self._lines.back([(self.number, text[:-1])])
                continue
            if text[0] not in "{[" or not left:
                self._report.line(self.number, str(found))
                continue
            yield from self._whole(text, left)

    def _next(self) -> str | None:
        while True:
            try:
                return self._lines.next()
            except TooLongError as error:
                self._report.line(self._lines.number, str(error))

    def _whole(self, text: str, left: list[str]) -> Iterator[Any]:
        """A value that spans several lines."""
        taken, size = [(self.number, text)], len(text)
        while (line := self._next()) is not None:
            more = line.strip()
            if not more:
                continue
            if more[0] == "{" and not _may_follow(taken[-1][1], left) and _alone(more):
                self._lost(taken)
                self._lines.back([(self._lines.number, line)])
                return
            taken.append((self._lines.number, line))
            size += len(line)
            if size > DOCUMENT_BYTES:
                raise SourceError(f"line {self.number}: a JSON value of more than {DOCUMENT_BYTES} bytes")
            found = _open_brackets(more, left)
            if found is None:
                break
            if not found:
                try:
                    yield from decode("\n".join(text for _, text in taken).rstrip().rstrip(","))
                except ValueError as error:
                    self._report.line(self.number, str(error))
                return
            left = found
        self._report.line(self.number, "is not JSON: it has no end")
        if len(taken) <= AGAIN:
            self._lines.back(taken[1:])
        elif len(taken) > 1:
            self._report.leave("lines of JSON that has no end", f"line {taken[1][0]}")

    def _lost(self, taken: list[tuple[int, str]]) -> None:
        for number, _ in taken:
            self._report.line(number, "is not JSON: it is cut off")


def _open_brackets(text: str, before: list[str] | None = None) -> list[str] | None:
    """The brackets still open after the text; ``None`` if it closes one that is not open."""
    found = list(before or ())
    for token in _TOKENS.findall(text):
        if token in "{[":
            found.append(token)
        elif token in "}]" and (not found or found.pop() != ("{" if token == "}" else "[")):
            return None
    return found


def _may_follow(text: str, left: list[str]) -> bool:
    """Whether an object may follow the text, with these brackets open."""
    last = text.rstrip()[-1:]
    return last == ":" or (left[-1:] == ["["] and last in "[,")


def _alone(text: str) -> bool:
    try:
        return isinstance(_DECODER.decode(text), dict)
    except (ValueError, RecursionError):
        return False
