"""The commands. Each module imports little more than typer at the top, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = ["CommandError", "complain", "ctrl_c", "examples", "hush_libraries", "quit_silently"]


class CommandError(Exception):
    """Ends the command with one line on standard error. ``code``: 2 for bad input or usage, 1 for a failure."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """Say it on standard error, in the form of every error of the command line."""
    print(f"streamer: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """Ctrl-C as a flag. As an exception it could land inside the scheduler's work and lose the stream its place, and
    the last words would never come. A second one is an exception again, for whoever does not want to wait for them.
    """
    pressed = threading.Event()

    def first(number: int, frame: Any) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def examples(*lines: str) -> str:
    """The end of a help text: one example a line (``\\b`` keeps typer from wrapping them into a paragraph)."""
    return "\b\nExamples:\n" + "\n".join(f"  $ {line}" for line in lines)


def hush_libraries() -> None:
    """PortAudio, ALSA and mpg123 write their thoughts to file descriptor 2, across the live lines: lead it nowhere.

    Python's own ``sys.stderr`` keeps the way out. For the rest of the process.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def quit_silently() -> NoReturn:
    """Whoever read standard output is gone (``streamer ... | head``): no message, a shell's exit code for SIGPIPE."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    raise SystemExit(141)
