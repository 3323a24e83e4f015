"""Logs: one record, one line, to standard error. JSON for machines, columns for people.

Built on :mod:`logging`, so uvicorn's, websockets' and our own records take the same path. Context goes in by ``extra``:
``log.info("resumed", extra={"stream": id})`` becomes ``{"event": "resumed", "stream": id}``.

No record holds what people say or sensors measure: fields that may hold it (:data:`CONTENT`) are left out, unless the
setting ``log_text`` is on.

Names and reasons come from outside. Whatever they hold, a record stays one line, can't imitate another record, and
sends no control sequence to a terminal: unprintable characters are escaped, and in columns a value that could look like
another column is quoted.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

from streamer.names import SEPARATOR, name_of, owner_of

__all__ = ["StreamLogger", "configure", "set_level"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}

#: Fields with the words of a final, and with reasons that may quote a client's input.
CONTENT = frozenset({"text", "detail"})

#: In columns a value without any of these is not quoted.
_QUOTED = re.compile(r"""[\s"=\\]""")


def _context(record: logging.LogRecord, hidden: frozenset[str]) -> dict[str, Any]:
    """The fields that the caller gave by ``extra``, in that order; a stream's id becomes its name and its owner."""
    left_out = _STANDARD | hidden
    found = {key: value for key, value in vars(record).items() if key not in left_out}
    stream = found.get("stream")
    if isinstance(stream, str) and SEPARATOR in stream:
        found |= {"stream": name_of(stream), "owner": owner_of(stream)}
    return found


def escaped(text: str) -> str:
    """``text`` with everything that is not printable as an escape that JSON reads."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    number -= 0x10000  # a pair, as JSON has it
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"


class _Formatter(logging.Formatter):
    """``text``: records keep the fields in :data:`CONTENT`."""

    def __init__(self, text: bool = False) -> None:
        super().__init__()
        self.hidden = frozenset[str]() if text else CONTENT


class JsonFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_context(record, self.hidden),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped(json.dumps(line, ensure_ascii=False, default=str))  # all that is not in quotes is printable


class ConsoleFormatter(_Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        context = _context(record, self.hidden)
        pairs = "".join(f"  {escaped(key)}={_value(value)}" for key, value in context.items())
        line = f"{time} {record.levelname.lower():<7} {escaped(record.getMessage())}{pairs}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).split("\n")
            line += "".join(f"\n    {escaped(part)}" for part in trace)  # set in, so that none looks like a record
        return line


def _value(value: Any) -> str:
    text = str(value)
    if text and not _QUOTED.search(text):
        return escaped(text)
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


class StreamLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger with a stream's id bound: ``StreamLogger(log, {"stream": id})``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None, *, text: bool = False) -> None:
    """Send every logger of the process through one handler. ``style``: ``auto``, ``json`` or ``console``. ``text``:
    records may hold what clients said or sent."""
    out = stream or sys.stderr
    if style == "auto":
        style = "console" if out.isatty() else "json"
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter(text) if style == "json" else ConsoleFormatter(text))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """Set the level of our own records. uvicorn and websockets report every connection at ``info``, so theirs is
    warning. uvicorn's warnings about requests that it can't read are left out: a client could fill the disk with
    them."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number)
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets", "asyncio"):
        least = logging.ERROR if name == "uvicorn.error" and number > logging.DEBUG else logging.WARNING
        logging.getLogger(name).setLevel(max(number, least))
