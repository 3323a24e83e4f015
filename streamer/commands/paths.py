"""File names as they were typed: an empty one, or the address of something that is no file, is refused before any
work."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamer.commands import CommandError

__all__ = ["check_files"]

#: Parameters of commands that are texts, and name files.
TEXTS = frozenset({"file", "files", "output", "rows"})
#: Commands that read standard input, and the one that needs ffmpeg's help for it.
PIPES = frozenset({"classify", "enhance", "forecast", "run", "transcribe"})
SOUND = frozenset({"classify", "enhance", "transcribe"})
#: :class:`~pathlib.Path` keeps one slash of an address.
ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}(?=[^/])|(file):/", re.IGNORECASE)


def check_files(command: str, given: Mapping[str, Any]) -> None:
    """Check a command's parameters. Raises :class:`CommandError`."""
    for name, value in given.items():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, Path) or (name in TEXTS and isinstance(each, str)):
                _check(command, name, each)


def _check(command: str, name: str, given: Path | str) -> None:
    what = f"--{name.replace('_', '-')}" if name not in ("file", "files", "rows", "model") else "FILE"
    if given == "" or (given == Path() and any(word == "" or word.endswith("=") for word in sys.argv)):
        raise CommandError(f"{what}: the name is empty: name a file", 2)
    if (found := ADDRESS.match(str(given))) is None or Path(given).exists():
        return
    rest = str(given)[found.end() :]
    if (found[1] or found[2]).lower() == "file":
        path = f"/{rest.lstrip('/')}"
        raise CommandError(f"file://{path}: is an address, not a file's name: name {path}", 2)
    shown = f"{found[1]}://{rest}"
    if what != "FILE":
        raise CommandError(f"{what} {shown}: is an address, not a file's name: write a file, and send that", 2)
    if command not in PIPES:
        raise CommandError(f"{shown}: is an address, not a file's name: download it first (curl -LO '{shown}')", 2)
    way = f"curl -sL '{shown}'"
    if found[1].lower() not in ("http", "https", "ftp"):
        if command not in SOUND:
            raise CommandError(f"{shown}: is an address, not a file's name: download it first", 2)
        way = f"ffmpeg -v error -i '{shown}' -f wav -"
    model = "run MODEL -" if command == "run" else f"{command} -"
    raise CommandError(f"{shown}: is an address, not a file's name: {way} | streamer {model}", 2)
