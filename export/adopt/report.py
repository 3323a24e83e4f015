"""Messages of adoption: lines about what was found and done, or the reason for a refusal."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["AdoptionError", "Report", "listed"]


class AdoptionError(ValueError):
    """The model can't be adopted as it is. The message has the reason, and says what to do."""


class Report:
    """Collects lines in order; ``say`` gets each at once, ``doing`` gets progress messages."""

    def __init__(
        self, say: Callable[[str], None] = lambda line: None, doing: Callable[[str], None] = lambda what: None
    ) -> None:
        self.lines: list[str] = []
        self._say = say
        self.step = doing

    def found(self, what: str) -> None:
        self._add("found", what)

    def did(self, what: str) -> None:
        self._add("did", what)

    def _add(self, kind: str, what: str) -> None:
        self.lines.append(f"{kind:<6} {what}")
        self._say(self.lines[-1])


def listed(names: list[str] | tuple[str, ...], most: int = 6) -> str:
    """Names for a sentence; of many the first ones."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
