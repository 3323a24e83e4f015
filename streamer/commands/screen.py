"""The terminal display: finals scroll, the partial is redrawn in place below them, followed by a status line.

Only used if the output is a terminal.
"""

from __future__ import annotations

import math
import sys
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

__all__ = ["Screen", "clock", "meter"]

#: Lower end of the level meter, in dB relative to full scale.
FLOOR_DB = -60.0
BAR = 24


class Screen:
    """Manages the bottom lines of the terminal while entered: of standard output if ``text``, else of standard
    error."""

    def __init__(self, *, text: bool) -> None:
        self.text = text
        self._console = Console(stderr=not text, highlight=False, soft_wrap=False)
        self._partials: dict[str, str] = {}
        self._status: RenderableType = ""
        self._live = Live(
            console=self._console,
            auto_refresh=True,
            refresh_per_second=10,
            transient=True,
            get_renderable=self._draw,
            # whatever else is printed goes above the live lines, but only if it goes to this terminal anyway
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def partial(self, file: str, text: str) -> None:
        """Show the partial text of ``file``; empty removes it."""
        if text:
            self._partials[file] = text
        elif self._partials.pop(file, None):
            self._live.refresh()  # else the next print would redraw the old lines below itself

    def status(self, line: RenderableType) -> None:
        """Set the line below the partials; it is cut where the terminal ends."""
        self._status = self.one_line(line) if isinstance(line, str | Text) else line

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the terminal, now."""
        return self._console.width, self._console.height

    def meter(self, peak: float) -> Text:
        """:func:`meter`, as long as a third of the terminal, in characters that the terminal can show."""
        return meter(peak, min(BAR, max(4, self._console.width // 3)), ascii_only=self._console.options.ascii_only)

    @staticmethod
    def one_line(line: str | Text) -> Text:
        """Cut where the terminal ends: a line that wraps would push the others about."""
        text = Text(line) if isinstance(line, str) else line
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _draw(self) -> RenderableType:
        rows: list[RenderableType] = []
        for text in self._partials.values():
            room = self._console.width * 3  # the end of a long partial is where it grows
            rows.append(Text(text if len(text) <= room else "…" + text[-room + 1 :], style="dim"))
        return Group(*rows, self._status) if self._status else Group(*rows)


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def meter(peak: float, width: int = BAR, *, ascii_only: bool = False) -> Text:
    """A bar for a peak level in [0, 1], on a scale of decibels; red when the input clips."""
    db = 20 * math.log10(peak) if peak > 0 else -math.inf
    filled = round(width * min(1.0, max(0.0, 1 - db / FLOOR_DB)))
    style = "red" if peak >= 0.99 else "green"
    number = f"{db:4.0f} dB" if db > FLOOR_DB else "silence"
    full, empty = "#." if ascii_only else "█░"
    return Text.assemble((full * filled, style), (empty * (width - filled), "dim"), f" {number}")
