"""Collects open questions about a file into one message to the user: TOML to paste, with reasons as comments."""

from __future__ import annotations

from dataclasses import dataclass

from export.adopt.report import AdoptionError

__all__ = ["OpenQuestionsError", "Questions", "quoted"]

_TABLES = ("input", "state", "constants", "counters", "dims", "batch", "outputs", "recurrence")


@dataclass
class _Question:
    table: str
    line: str
    why: list[str]


class OpenQuestionsError(AdoptionError):
    """The user has to answer questions before the model can be adopted; the message has all of them, as TOML."""


class Questions:
    """Collects questions. Each is asked once: a size of two tensors is one line, with both reasons."""

    def __init__(self) -> None:
        self.questions: list[_Question] = []

    def ask(self, table: str, line: str, why: str) -> None:
        """Add a question. ``line``: a proposed line of the table; ``why``: the reason, as a comment above it."""
        for question in self.questions:
            if (question.table, question.line) == (table, line):
                if why not in question.why:
                    question.why.append(why)
                return
        self.questions.append(_Question(table, line, [why]))

    def settle(self) -> None:
        """Raises :class:`OpenQuestionsError` if anything was asked."""
        if self.questions:
            raise OpenQuestionsError(self.text())

    def text(self) -> str:
        """All questions, as TOML with an introduction."""
        count = len(self.questions)
        many = "one question" if count == 1 else f"{count} questions"
        lines = [f"the file leaves {many} open. Put this into a TOML file, correct it, and give it with -c FILE.toml:"]
        order = sorted({q.table for q in self.questions}, key=lambda t: _TABLES.index(t) if t in _TABLES else 99)
        for table in order:
            lines += ["", f"[{table}]"]
            for question in self.questions:
                if question.table == table:
                    lines += [*(f"# {why}" for why in question.why), question.line]
        return "\n".join(lines)


def quoted(name: str) -> str:
    """A tensor's name as a key of TOML."""
    plain = name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()
    return name if plain else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
