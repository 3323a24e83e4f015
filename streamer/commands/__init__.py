"""The commands. Each module imports little more than typer at the top, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import sys
from typing import NoReturn

__all__ = ["CommandError", "complain", "examples", "quit_silently"]


class CommandError(Exception):
    """Ends the command with one line on standard error. ``code``: 2 for bad input or usage, 1 for a failure."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """Say it on standard error, in the form of every error of the command line."""
    print(f"streamer: {message}", file=sys.stderr, flush=True)


def examples(*lines: str) -> str:
    """The end of a help text: one example a line (``\\b`` keeps typer from wrapping them into a paragraph)."""
    return "\b\nExamples:\n" + "\n".join(f"  $ {line}" for line in lines)


def quit_silently() -> NoReturn:
    """Whoever read standard output is gone (``streamer ... | head``): no message, a shell's exit code for SIGPIPE."""
    import os

    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    raise SystemExit(141)
