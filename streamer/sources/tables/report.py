"""Reports on the unused parts of an input: the first ones in words, all of them counted."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["SHOWN", "TableReport"]

SHOWN = 10  # complaints, then they are only counted


class TableReport:
    """``complain`` gets a sentence for each of the first lines and cells that can't be read. ``bad`` counts bad lines,
    ``cells`` bad cells of other lines, ``passed`` what is left out on purpose, with the first example."""

    def __init__(self, name: str, complain: Callable[[str], None]) -> None:
        self.name, self._complain = name, complain
        self.bad = self.cells = self._complaints = 0
        self.notes: list[str] = []
        self.passed: dict[str, tuple[int, str]] = {}
        #: Columns that are left out, and why.
        self.columns: dict[str, str] = {}

    def line(self, number: int, what: str) -> None:
        """A line that gives no reading."""
        self.bad += 1
        self._count(f"line {number}: {what}")

    def cell(self, number: int, column: str, what: str, count: int = 1) -> None:
        """A cell that gives no reading, of a line that may give others."""
        self.cells += count
        self._count(f"line {number}: column {column}: {what}")

    def whole(self, what: str) -> None:
        """An error of the whole input, found after the last line."""
        self.bad += 1
        self._complain(f"{self.name}: {what}")

    def note(self, what: str) -> None:
        """Report, once, how ambiguous text was read."""
        self.notes.append(f"{self.name}: {what}")
        self._complain(self.notes[-1])

    def leave(self, what: str, example: str) -> None:
        """Count something left out on purpose; ``what`` is its name in the plural."""
        count, first = self.passed.get(what, (0, example))
        self.passed[what] = (count + 1, first)

    def left_out(self) -> list[str]:
        """Sentences about what was left out, for the end."""
        found = []
        for what, (count, first) in self.passed.items():
            some = (
                what.replace("lines that repeat", "line that repeats").replace("lines", "line", 1)
                if count == 1
                else what
            )
            found.append(f"{count} {some} left out, the first: {first}")
        if self.columns:
            columns = [f"{name} ({why})" for name, why in list(self.columns.items())[:SHOWN]]
            more = f" and {len(self.columns) - SHOWN} more" if len(self.columns) > SHOWN else ""
            found.append(f"columns left out: {', '.join(columns)}{more}")
        return found

    def _count(self, what: str) -> None:
        self._complaints += 1
        if self._complaints <= SHOWN:
            self._complain(f"{self.name}: {what}")
        elif self._complaints == SHOWN + 1:
            self._complain(f"{self.name}: more lines and cells that can't be read are only counted")
