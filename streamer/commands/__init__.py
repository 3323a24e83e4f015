"""The commands. Each module imports little more than typer at the top, so that ``--help`` is quick."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

__all__ = [
    "TOO_SLOW",
    "CommandError",
    "complain",
    "ctrl_c",
    "examples",
    "hush_libraries",
    "quit_silently",
    "why",
]

#: The advice where a daemon, or this machine, does not keep up.
TOO_SLOW = "the machine is too busy, or the daemon hangs (streamer top shows it); try again"
#: The advice for errors of the operating system, by errno.
REMEDIES = {
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name",
    errno.EISDIR: "name a file",
    errno.EACCES: "change its rights, or run as a user who may",
    errno.EPERM: "change its rights, or run as a user who may",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "make room, or name another disk",
    errno.EADDRINUSE: "end the program that has it, or choose another --port",
}


class CommandError(Exception):
    """Ends the command with one line on standard error. ``code``: 2 for bad input or usage, 1 for other failures."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """Print an error on standard error, in the format of all commands."""
    print(f"streamer: {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def ctrl_c() -> Iterator[threading.Event]:
    """Turns Ctrl-C into a flag. As an exception it could interrupt the scheduler, and the stream's last words would be
    lost. A second Ctrl-C raises as usual, to quit without waiting for them.
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


def why(error: Exception) -> str:
    """The operating system's message, with the advice for it."""
    if not isinstance(error, OSError):
        return str(error)
    message = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0)
    return f"{message}: {remedy}" if remedy else message


def examples(*lines: str) -> str:
    """The end of a help text: one example a line (``\\b`` keeps typer from wrapping them into a paragraph)."""
    return "\b\nExamples:\n" + "\n".join(f"  $ {line}" for line in lines)


def hush_libraries() -> None:
    """Redirect file descriptor 2 to /dev/null: PortAudio, ALSA and mpg123 write messages to it, across the live lines.

    Python's ``sys.stderr`` keeps working. Stays so for the rest of the process.
    """
    sys.stderr.flush()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def quit_silently() -> NoReturn:
    """The reader of standard output is gone (``streamer ... | head``): quit without a message, with the exit code for
    SIGPIPE."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush complains
    raise SystemExit(141)
