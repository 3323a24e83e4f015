"""A case: an input, the command that it is given to, its outcome, exit code and message. A table of them is a test and
a section of ``docs/inputs.md``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cli.command import environment

__all__ = ["Case", "Result", "hold", "nothing", "run"]

#: In :attr:`Case.says` and :attr:`Case.gives`: any text, of one line.
ANY = "…"


def nothing(folder: Path) -> None:
    """The input needs no file."""


@dataclass(frozen=True)
class Case:
    """``name``: what is given, in the reader's words; one of a table. ``source``: the section of the document.
    ``make``: writes it into an empty folder, in which ``command`` is run: a line for bash, or what another runner
    takes. ``exit``: its exit code, or a request's status. ``says``: every line of standard error, in order; empty:
    nothing is said. ``gives``: all of standard output, ``None`` where the test looks for itself. Both may hold ``…``
    for text that is not shown. ``outcome``: what is done with it, in a few words.
    """

    name: str
    source: str
    command: str
    outcome: str
    make: Callable[[Path], object] = nothing
    exit: int = 0
    says: str = ""
    gives: str | None = None


@dataclass(frozen=True)
class Result:
    """Of a command, or of a request: its status, its answer, and the message in it."""

    code: int
    out: str
    err: str


def run(
    case: Case, folder: Path, options: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None
) -> Result:
    """The case as its user runs it. ``options``: what is added to a command of ``streamer``, such as a small model:
    ``{"transcribe": "--model toy.onnx"}``."""
    case.make(folder)
    tools = folder.parent / f"{folder.name}-bin"
    tools.mkdir(exist_ok=True)
    chosen = "".join(f'  {name}) shift; set -- {name} {extra} "$@" ;;\n' for name, extra in (options or {}).items())
    shim = tools / "streamer"
    shim.write_text(
        f'#!/bin/bash\ncase "$1" in\n{chosen}  *) ;;\nesac\nexec {sys.executable} -W error -m streamer "$@"\n'
    )
    shim.chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", case.command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=folder,
        env=environment({"PATH": path, **(env or {})}),
        timeout=120,
    )
    return Result(done.returncode, *(s.decode("utf-8", "surrogateescape") for s in (done.stdout, done.stderr)))


def hold(case: Case, result: Result) -> None:
    """The outcome is the promised one."""
    assert "Traceback" not in result.err
    assert _matches(case.says, result.err), f"says {result.err!r}, not {case.says!r}"
    assert result.code == case.exit
    assert case.gives is None or _matches(case.gives, result.out), f"gives {result.out!r}, not {case.gives!r}"


def _matches(wanted: str, text: str) -> bool:
    pattern = ".*".join(map(re.escape, wanted.rstrip("\n").split(ANY)))
    return re.fullmatch(pattern, text.rstrip("\n")) is not None
