"""A command in a real terminal (a pty) of a chosen size, and what is seen on it (pyte draws it)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence

import pyte

from tests.cli.command import STREAMER, environment

__all__ = ["Terminal", "terminal"]

SECONDS = 30.0


class Terminal:
    """``raw`` is everything that was written to it."""

    def __init__(self, command: Sequence[str], columns: int, lines: int, **more: str) -> None:
        self._main, side = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.resize(columns, lines)
        env = environment({"TERM": "xterm-256color", "LANG": "C.UTF-8", **more})
        for name in ("COLUMNS", "LINES", *({"NO_COLOR"} - set(more))):
            env.pop(name, None)
        self.process = subprocess.Popen(
            list(command), stdin=side, stdout=side, stderr=side, env=env, start_new_session=True, preexec_fn=_own
        )
        os.close(side)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._main, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    @property
    def lines(self) -> list[str]:
        """What stands there now, without the empty end of each line."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def until(self, there: Callable[[], bool]) -> None:
        """Read on until it is so."""
        end = time.monotonic() + SECONDS
        while not there():
            assert time.monotonic() < end, self.text
            if not self._read(0.2):
                assert there(), f"it ended: {self.text}"
                return

    def shows(self, said: str) -> None:
        self.until(lambda: said in self.text)

    def type(self, keys: str) -> None:
        os.write(self._main, keys.encode())

    def end(self) -> int:
        """Read to the end; the exit code."""
        while self._read(SECONDS):
            pass
        return self.process.wait(SECONDS)

    def _read(self, seconds: float) -> bool:
        """``False``: the other side is closed."""
        if not select.select([self._main], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._main, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(SECONDS)
        os.close(self._main)


def _own() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C goes to whom the terminal belongs


@contextlib.contextmanager
def terminal(*arguments: str, columns: int = 80, lines: int = 24, **more: str) -> Iterator[Terminal]:
    """``streamer ARGUMENTS``; ``more``: environment."""
    made = Terminal([*STREAMER, *arguments], columns, lines, **more)
    try:
        yield made
    finally:
        made.close()
