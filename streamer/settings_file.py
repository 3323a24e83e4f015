"""Reads the TOML file of settings. If it is not TOML, the error names the probable mistake."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

__all__ = ["SettingsError", "read_toml"]


class SettingsError(ValueError):
    """A setting that can't be used. The message names it, its source, and the accepted values."""


def read_toml(path: Path, shown: Collection[str] = ()) -> dict[str, Any]:
    """Read UTF-8, or UTF-16 with a byte order mark. Raises :class:`SettingsError` with the number of the line. Only
    lines of the settings in ``shown`` are quoted: any other line may hold a password."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path}: {error.strerror or error}") from error
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8: save it as UTF-8"
        ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}{_hint(text, error, shown)}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, very deep lists
        raise SettingsError(f"{path} is not TOML: a value is too long, or nested too deeply") from error


def _hint(text: str, error: tomllib.TOMLDecodeError, names: Collection[str]) -> str:
    """The probable mistake in the line that can't be read; empty if unknown."""
    message = str(error)
    found = re.search(r"at line (\d+)", message)
    lines = text.splitlines()
    line = lines[min(int(found[1]), len(lines)) - 1].strip() if found and lines else ""
    name = re.match(r"[\w.-]*", line)[0]  # type: ignore[index]  # it matches everything
    shown = repr(line[:60]) if name in names else f"what is set as {name}" if name else "a line"
    value = line.partition("=")[2].strip()
    if text.lstrip().startswith("{"):
        return ": it looks like JSON; settings are lines like port = 8765"
    if re.fullmatch(r"[\w.-]+\s*:.*", line):
        return f": {shown} has a colon; settings are lines like port = 8765"
    if "overwrite" in message:
        return f": {shown} is set twice"
    if "Unclosed" in message:
        return f": a bracket before {shown} is not closed"
    if "=" in line and not value:
        return f": {shown} lacks a value"
    if value in ("True", "False"):
        return f": in {shown} write {value.lower()}"
    if "\\" in value and value[0] == '"':
        return f": in {shown} write '...' around a text with backslashes"
    if value and value[0] not in "\"'[{":
        return f": in {shown} a text needs quotes"
    return f": {shown}" if line and name in names else ""
