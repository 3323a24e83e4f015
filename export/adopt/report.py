"""Messages of adoption: a report of findings and changes, or the reason for a refusal."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["AdoptionError", "Report", "listed"]


class AdoptionError(ValueError):
    """The model can't be adopted. The message has the reason and the remedy."""


class Report:
    """Collects the report's lines in order. ``say`` gets each line at once; ``doing`` gets progress messages."""

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
    """Names for a sentence: the first ``most``, and the number of the others."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
