"""Outputs of transcription: lines of text, JSON lines or subtitles, to standard output or to files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from streamer import render
from streamer.commands import CommandError, why

__all__ = ["EXTENSIONS", "CommandOutput", "JsonOutput", "SubtitleOutput", "TextOutput", "destinations"]

EXTENSIONS = {"text": ".txt", "json": ".jsonl", "srt": ".srt", "vtt": ".vtt"}
Event = dict[str, Any]


class CommandOutput:
    """Writes to a file for each input, or everything to standard output. A file is created with its first result."""

    def __init__(self, names: Sequence[str], paths: dict[str, Path]) -> None:
        self.names = list(names)
        self._paths = paths
        self._files: dict[str, TextIO] = {}

    def event(self, name: str, event: Event) -> None:
        """Take one result of the input ``name``: ``partial``, ``final`` or ``segment``."""

    def finished(self, name: str, heard: bool) -> None:
        """The input has no more events; ``heard``: at least a part of it could be read."""
        if name in self._files:
            self._files.pop(name).close()

    def write(self, name: str, text: str) -> None:
        if name not in self._paths:
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        if name not in self._files:
            path = self._paths[name]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files[name] = path.open("w", encoding="utf-8")
            except OSError as error:
                raise CommandError(f"can't write {path}: {why(error)}") from error
        self._files[name].write(text)
        self._files[name].flush()


class TextOutput(CommandOutput):
    """One final a line. On standard output several inputs follow one another in order, with the name before each
    line."""

    def __init__(self, names: Sequence[str], paths: dict[str, Path]) -> None:
        super().__init__(names, paths)
        self._prefix = len(names) > 1 and not paths
        self._waiting: dict[str, list[str]] = {}
        self._open = set(names)
        self._turn = 0  # whose lines are written to standard output now

    def line(self, name: str, event: Event) -> str:
        """The event as a line; empty for no line."""
        return str(event["text"]) if event["type"] == "final" else ""

    def event(self, name: str, event: Event) -> None:
        if not (line := self.line(name, event)):
            return
        if self._paths:
            self.write(name, f"{line}\n")
            return
        self._waiting.setdefault(name, []).append(f"{name}: {line}\n" if self._prefix else f"{line}\n")
        self._flush()

    def finished(self, name: str, heard: bool) -> None:
        self._open.discard(name)
        self._flush()
        super().finished(name, heard)

    def _flush(self) -> None:
        """Write the lines of the current input; the others wait until it is done."""
        while not self._paths and self._turn < len(self.names):
            name = self.names[self._turn]
            if lines := self._waiting.pop(name, None):
                self.write(name, "".join(lines))
            if name in self._open:
                return
            self._turn += 1


class JsonOutput(CommandOutput):
    """Writes events as they come, one JSON object a line."""

    def event(self, name: str, event: Event) -> None:
        line = render.json_line if "text" in event else render.label_line
        self.write(name, line(event, name) + "\n")


class SubtitleOutput(CommandOutput):
    """Writes subtitles at the end of the input, since a cue's end depends on the next cue."""

    def __init__(self, names: Sequence[str], paths: dict[str, Path], form: str) -> None:
        super().__init__(names, paths)
        self._render = render.srt if form == "srt" else render.vtt
        self._finals: dict[str, list[Event]] = {}

    def event(self, name: str, event: Event) -> None:
        if event["type"] == "final":
            self._finals.setdefault(name, []).append(event)

    def finished(self, name: str, heard: bool) -> None:
        finals = self._finals.pop(name, [])
        if heard:  # also where nothing was said: an empty file is the answer then
            self.write(name, self._render(finals))
        super().finished(name, heard)


def destinations(names: Sequence[str], wanted: str | None, form: str) -> dict[str, Path]:
    """Input name -> file to write; empty: standard output. Raises :class:`CommandError` if two outputs are the
    same file, or an output is an input."""
    if wanted is None:
        if len(names) > 1 and form in ("srt", "vtt"):
            raise CommandError("subtitles of several files need a folder: -o FOLDER/", 2)
        return {}
    output = Path(wanted)
    folder = output.is_dir() or wanted.endswith("/")
    if len(names) > 1 and not folder:
        if output.exists():
            raise CommandError(f"-o {output}: is a file, and there are {len(names)} inputs: give a folder", 2)
        folder = True
    if not folder:
        found = {names[0]: output}
    else:
        found = {name: output / ((Path(name).stem if name != "-" else "stdin") + EXTENSIONS[form]) for name in names}
    seen: dict[Path, str] = {}
    for name, path in found.items():
        if path in seen:
            raise CommandError(f"{seen[path]} and {name} would both be written to {path}: run them apart", 2)
        if name != "-" and path.exists() and Path(name).exists() and path.samefile(name):
            raise CommandError(f"-o {path}: is the input itself: choose another name", 2)
        seen[path] = name
    return found
