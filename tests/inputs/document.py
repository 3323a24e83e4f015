"""``docs/inputs.md``, made of the tables of cases: ``python -m tests.inputs.document`` writes it.

A table is the tuple ``CASES`` of a module ``test_*.py`` in this folder; its ``ABOUT`` has the first lines of each of
its sources, in the order of the document; ``ORDER`` is the module's place.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from tests.inputs.cases import Case

__all__ = ["PAGE", "modules", "page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
HEAD = """# What is read, and what is refused

Every row is a test (`tests/inputs/`), and this page is made of them (`python -m tests.inputs.document`). What is not
used is said, with a count and the first example; nothing is made up. `…` stands for text that differs.

Exit codes: 0 all of it was read, 2 some of it was not (the input or the usage is to blame), 1 the command failed.
A file that can't be read does not stop the others.
"""


def modules() -> list[ModuleType]:
    """Those with a table, in the order of the document."""
    names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name.startswith("test_")]
    found = [importlib.import_module(f"tests.inputs.{name}") for name in names if name != "test_document"]
    return sorted((m for m in found if hasattr(m, "CASES")), key=lambda m: (m.ORDER, m.__name__))


def page() -> str:
    """All of it."""
    parts = [HEAD]
    for module in modules():
        for source, about in module.ABOUT.items():
            rows = [case for case in module.CASES if case.source == source]
            parts.append(f"## {source}\n\n{about.strip()}\n\n" + _table(rows))
    return "\n".join(parts)


def _table(cases: list[Case]) -> str:
    lines = ["| given | command | outcome | code | words |", "|---|---|---|---|---|"]
    for case in cases:
        words = "<br>".join(_code(line) for line in case.says.splitlines())
        lines.append(f"| {_cell(case.name)} | {_code(case.command)} | {_cell(case.outcome)} | {case.exit} | {words} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _code(text: str) -> str:
    """In a cell of a table; a text with backticks needs two around it."""
    mark = "``" if "`" in text else "`"
    space = " " if mark == "``" else ""
    return f"{mark}{space}{_cell(text)}{space}{mark}" if text else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
