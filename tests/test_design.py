"""docs/design.md speaks of files, classes and methods that are there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "design.md").read_text("utf-8")
INTERFACES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0]
#: Of no class of this project.
FOREIGN = {"README.md"}


def classes() -> dict[str, set[str]]:
    """Name -> what a class of that name, or one that it is made from, has: methods, fields, attributes of ``self``."""
    own: dict[str, set[str]] = defaultdict(set)
    bases: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "streamer").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            own[node.name]  # one that has nothing is a class, too
            bases[node.name] |= {base.id for base in node.bases if isinstance(base, ast.Name)}
            for part in ast.walk(node):
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                    own[node.name].add(part.name)
                elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                    own[node.name].add(part.target.id)
                elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store):
                    own[node.name].add(part.attr)

    def all_of(name: str) -> set[str]:
        return own[name].union(*(all_of(base) for base in bases[name] if base in own and base != name))

    return {name: all_of(name) for name in list(own)}


CLASSES = classes()


def test_its_files_exist() -> None:
    named = set(re.findall(r"`((?:streamer|export|models|tests|docs)/[\w./-]+)`", TEXT))
    named |= {f"streamer/{path}" for path in re.findall(r"[`(]((?:engine|streams|sensors|serve|store)/\w+\.py)`", TEXT)}
    assert len(named) > 60
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_its_methods_exist() -> None:
    named = set(re.findall(r"`([A-Z]\w+)\.(\w+)", TEXT))
    assert len(named) > 25
    wrong = [f"{name}.{part}" for name, part in sorted(named) if part not in CLASSES.get(name, ())]
    assert [found for found in wrong if found not in FOREIGN] == []


def parts() -> list[tuple[str, str]]:
    """(class, method or field) of the interfaces."""
    found, name = [], ""
    for line in INTERFACES.splitlines():
        code = line.partition("#")[0]
        if heads := re.findall(r"class (\w+)", code):
            name = heads[0]
            found.append((name, ""))
        if not code.startswith(" "):
            name = name if heads else ""
        if name:
            found += [(name, part) for part in re.findall(r"def (\w+)", code)]
            fields = re.findall(r"(?:^    |: (?!.*def )|; )(\w+): ", code) if "def " not in code else []
            found += [(name, part) for part in fields]
    return found


@pytest.mark.parametrize("name", sorted({name for name, _ in parts()}))
def test_its_interfaces_are_there(name: str) -> None:
    assert name in CLASSES
    wrong = [part for owner, part in parts() if owner == name and part and part not in CLASSES[name]]
    assert wrong == []
