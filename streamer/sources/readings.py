"""Sensor readings from CSV, JSON and bare numbers, line by line as they come, in bounded memory for an endless pipe.
The formats of lines and cells are in :mod:`streamer.sources.tables`.
"""

from __future__ import annotations

import gzip
import io
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO, Any, cast

from streamer.names import check_name
from streamer.sensors.columns import Reading, Row
from streamer.sources import SourceError
from streamer.sources.followed import FollowedFile
from streamer.sources.tables.documents import DOCUMENT_BYTES
from streamer.sources.tables.encoding import LINE_BYTES, Lines, TooLongError, no_text
from streamer.sources.tables.layouts import TIMES, Columns
from streamer.sources.tables.numbers import MISSING
from streamer.sources.tables.objects import Objects
from streamer.sources.tables.plain import Plain, is_plain
from streamer.sources.tables.report import SHOWN, TableReport
from streamer.sources.tables.table import SourceTable

__all__ = ["LINE_BYTES", "MISSING", "SHOWN", "TIMES", "Columns", "Reading", "Readings", "Row"]

#: Texts that are not tables, and the advice for each.
STRANGERS = (
    (re.compile(r"\s*<.*", re.DOTALL), "is XML or HTML: readings are CSV or JSON"),
    (re.compile(r"--+[\w'()+,./:=?-]{8,}\s*"), "is form data: send the file itself (curl --data-binary @FILE)"),
    (re.compile(r"# (HELP|TYPE) \w+.*"), "is a page of Prometheus metrics: remote write sends them (/api/v1/write)"),
    (
        re.compile(r"[^\s,={}\"]+(,[^\s,=]+=[^\s,=]+)* [^\s,=]+=[^\s,=]+(,[^\s,=]+=[^\s,=]+)*( -?\d+)?\s*"),
        "is InfluxDB's line protocol: POST it to /api/v2/write of streamer serve",
    ),
    (re.compile(r"[\w.%+-]+=[^,;\t\s]*(&[\w.%+-]+=[^,;\t\s]*)*"), "is form data: readings are CSV or JSON"),
)  # fmt: skip


class Readings:
    """One input: a path, ``-``, or ``data`` in memory. Iterate it once. Raises :class:`SourceError` if nothing can be
    read. ``plain``: lines of bare numbers are readings, too. ``follow``: at the end of the file more is waited for,
    until :meth:`close`.

    :meth:`names` returns the columns' names, before anything else is read; ``columns`` may be set until then.
    ``complain`` gets a sentence for each of the first bad lines and cells, and for each guess that the user should
    know; ``bad`` counts bad lines, ``cells`` bad cells of other lines. ``timed`` and the ``header`` of a CSV are set
    after the first reading, :meth:`left_out` is complete after the last.
    """

    def __init__(
        self,
        name: str,
        columns: Columns,
        complain: Callable[[str], None],
        data: bytes | None = None,
        plain: bool = False,
        follow: bool = False,
    ) -> None:
        self.name, self.columns = name, columns
        #: Says why a line of some columns does not belong to this input; ``None``: every line does. Empty: it does.
        self.misfit: Callable[[Collection[str]], str] | None = None
        #: The name for the values of lines that name no stream, which then must be of one column; empty: the column's.
        self.stream = ""
        self._column = ""
        self._plain = plain
        self.report = TableReport(name, complain)
        self._followed = _follow(name) if follow else None
        if self._followed is not None:
            self._raw: IO[bytes] = io.BufferedReader(self._followed)
        else:
            self._raw = _open(name) if data is None else io.BufferedReader(io.BytesIO(data))
        known = data is None and name != "-" and not follow
        self.total = os.fstat(self._raw.fileno()).st_size if known else 0
        #: The whole input is available: it is not a pipe.
        self.whole = data is not None or self.total > 0
        zipped = data is None and not follow and cast(Any, self._raw).peek(2)[:2] == b"\x1f\x8b"
        file: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=self._raw)) if zipped else self._raw
        self._text = Lines(file)
        self._found: SourceTable | Objects | Plain | None = None
        self._refused: SourceError | None = None

    @property
    def done(self) -> int:
        """Bytes read so far; ``total`` is the size, 0 if unknown."""
        return self._raw.tell() if self.total else 0

    @property
    def bad(self) -> int:
        return self.report.bad

    @property
    def cells(self) -> int:
        return self.report.cells

    @property
    def lines(self) -> int:
        return self._text.number

    @property
    def timed(self) -> bool:
        return self._found is None or self._found.timed

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self._found.names) if isinstance(self._found, SourceTable) else ()

    @property
    def times(self) -> tuple[str, ...]:
        """Names of the time columns."""
        return () if self._found is None else self._found.times

    def close(self) -> None:
        if self._followed is not None:
            self._followed.stop()  # or the thread that reads would keep the file from being closed
        if self.name != "-":
            self._raw.close()

    def names(self) -> tuple[str, ...]:
        """Columns of a CSV, or keys of the first object; empty if the first line is neither."""
        try:
            self._begin()
        except SourceError:
            return ()
        return tuple(self._found.names) if self._found is not None else ()

    def __iter__(self) -> Iterator[Reading]:
        names: dict[tuple[str | None, str], str] = {}
        for row in self.rows():
            assert self._found is not None
            for column, value in row.values.items():
                whose = (row.stream, column)
                name = names.get(whose)
                if name is None:
                    try:
                        name = self._alone(column) if self.stream and row.stream is None else None
                        name = name or self._found.named(row, column)
                    except SourceError:
                        raise
                    except ValueError as error:
                        self.report.cell(self._text.number, column[:40], str(error))
                        continue
                    if len(names) > 100_000:
                        names.clear()
                    names[whose] = name
                yield Reading(name, row.time, value)

    def _alone(self, column: str) -> str:
        """The name for a column's values, if it is the only column. Raises :class:`SourceError` if it is not."""
        if self._column not in ("", column):
            what = f"is given to several columns ({self._column[:40]} and {column[:40]})"
            advice = "leave ?stream= out, or choose one with ?value="
            raise SourceError(f"{self.name}: one name, {self.stream[:40]!r}, {what}: {advice}")
        self._column = column
        return check_name(self.stream)

    def rows(self) -> Iterator[Row]:
        """One row a line, with the stream separate from the columns."""
        self._begin()
        if self._found is not None:
            try:
                yield from self._found.rows()
            except SourceError as error:
                raise self._named(error) from None
        if trouble := self._text.trouble:
            self.report.whole(f"can't be read behind line {self._text.number}: {trouble}")

    def left_out(self) -> list[str]:
        """Sentences about what was left out on purpose and how ambiguous text was read."""
        found = self.report.left_out()
        text = self._text
        if text.encoding != "UTF-8":
            found.insert(0, f"read as {text.encoding}")
        if text.first_foreign is not None:
            line, words = text.first_foreign
            shown = next((word for word in re.split(r"[,;\t|]", words) if not word.isascii()), words).strip()[:40]
            lines = "line is" if text.foreign == 1 else "lines are"
            found.insert(0, f"{text.foreign} {lines} not UTF-8, read as cp1252, the first: line {line}, {shown!r}")
        return found

    def _begin(self) -> None:
        """Read the beginning. Raises :class:`SourceError`, the same one on every call."""
        if self._refused is not None:
            raise self._refused
        if self._found is None:
            try:
                self._look()
            except SourceError as error:
                self._refused = self._named(error)
                raise self._refused from None

    def _look(self) -> None:
        text = self._text
        head = text.begin()
        if reason := no_text(head):
            raise SourceError(reason)
        if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            text.most = DOCUMENT_BYTES
        first = self._first()
        if first is None:
            return
        begun = first.lstrip("\x1e \t\ufeff")
        if begun[:1] in ("{", "["):
            objects = Objects(text, self.report, lambda: self.columns, lambda: self.misfit)
            objects.begin()
            self._found = objects
        elif self._plain and not self.columns.names and is_plain(first) and self._second_is_plain():
            plain = Plain(text, self.report, lambda: self.columns)
            plain.begin(first)
            self._found = plain
        else:
            for pattern, what in STRANGERS:
                if pattern.fullmatch(first):
                    raise SourceError(what)
            table = SourceTable(text, self.report, lambda: self.columns, self.whole, lambda: self.misfit)
            table.begin(self.columns.names)
            self._found = table

    def _first(self) -> str | None:
        """The first line that is not blank, which is put back; ``None`` if there is none, after a complaint."""
        text = self._text
        while True:
            try:
                line = text.next()
            except TooLongError as error:
                if text.most > LINE_BYTES:
                    raise SourceError(f"line {text.number} {error}: one JSON object a line is read") from None
                self.report.line(text.number, str(error))
                continue
            if line is None:
                if not self.report.bad and not text.trouble:
                    raise SourceError("is empty")
                return None
            if line.strip():
                text.back([(text.number, line)])
                return line

    def _second_is_plain(self) -> bool:
        """Whether a file's second line is a bare number, which shows that the first one is not a header. For a pipe no
        second line is waited for."""
        if not self.whole:
            return True
        text, taken = self._text, list[tuple[int, str]]()
        try:
            while len(taken) < 10 and (line := text.next()) is not None:
                taken.append((text.number, line))
                if line.strip() and len(taken) > 1:
                    return is_plain(line)
        except TooLongError:
            return False
        finally:
            text.back(taken)
        return True

    def _named(self, error: SourceError) -> SourceError:
        message = str(error)
        return error if message.startswith(f"{self.name}: ") else SourceError(f"{self.name}: {message}")


def _follow(name: str) -> FollowedFile:
    path = Path(name)
    if name == "-" or not path.is_file():
        why = "a pipe is followed anyway" if name == "-" or path.exists() else "there is no such file yet"
        raise SourceError(f"{name}: only a file can be followed: {why}; leave out --follow, or name another")
    try:
        followed = FollowedFile(path)
    except OSError as error:
        raise SourceError(f"{name}: {(error.strerror or str(error)).lower()}") from error
    with path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            followed.close()
            raise SourceError(f"{name}: is gzipped, which can't be followed: leave out --follow, or unpack it")
    return followed


def _open(name: str) -> IO[bytes]:
    if name == "-":
        if os.isatty(0):
            raise SourceError("-: standard input is a terminal; pipe CSV or NDJSON into it")
        # not sys.stdin: the interpreter wants its lock to end, which a thread that waits for a line holds
        return open(0, "rb", closefd=False)
    path = Path(name)
    if path.is_dir():
        raise SourceError(f"{name}: is a folder, not a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{name}: {(error.strerror or str(error)).lower()}") from error
