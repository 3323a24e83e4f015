"""Logs: one record, one line, to standard error. JSON for machines, columns for people.

Built on :mod:`logging`, so uvicorn's, websockets' and our own records take the same path. Context goes in by ``extra``:
``log.info("resumed", extra={"stream": id})`` becomes ``{"event": "resumed", "stream": id}``.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

__all__ = ["StreamLogger", "configure", "set_level"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


def _context(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave by ``extra``, in the order given."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_context(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class ConsoleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        pairs = "".join(f"  {key}={value}" for key, value in _context(record).items())
        line = f"{time} {record.levelname.lower():<7} {record.getMessage()}{pairs}"
        return line + "\n" + self.formatException(record.exc_info) if record.exc_info else line


class StreamLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger with a stream's id bound: ``StreamLogger(log, {"stream": id})``."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def configure(level: str = "info", style: str = "auto", stream: TextIO | None = None) -> None:
    """Send every logger of the process through one handler. ``style``: ``auto``, ``json`` or ``console``."""
    out = stream or sys.stderr
    if style == "auto":
        style = "console" if out.isatty() else "json"
    handler = logging.StreamHandler(out)
    handler.setFormatter(JsonFormatter() if style == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(level)


def set_level(level: str) -> None:
    """The level of our own records; uvicorn and websockets report every connection at ``info``, so theirs is
    warning."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger().setLevel(number)
    for name in ("uvicorn.error", "uvicorn.access", "uvicorn.asgi", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
