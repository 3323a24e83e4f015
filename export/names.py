"""The names that the author of a ``forward`` has for its tensors, read from its source where that is at hand."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from torch import nn

__all__ = ["Spoken", "joined"]

Path = tuple[Any, ...]


def joined(name: str, path: Path) -> str:
    """``state``, ("k", 0) -> ``state.k.0``."""
    return ".".join(str(part) for part in (*([name] if name else []), *path))


class Spoken:
    """``return logits, (h, c)`` names an output and two states, ``h, c = state`` the parts of a parameter."""

    def __init__(self, module: nn.Module) -> None:
        self._returned: ast.expr | None = None
        self._unpacked: dict[str, ast.expr] = {}
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(type(module).forward)))
        except (OSError, TypeError, SyntaxError):  # typed into a console, compiled, generated
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Return) and node.value is not None:
                self._returned = node.value
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                self._unpacked[node.value.id] = node.targets[0]

    def returned(self, path: Path) -> str | None:
        """Name of what is at ``path`` of the returned value."""
        return _named(self._returned, path)

    def unpacked(self, parameter: str, path: Path) -> str | None:
        return _named(self._unpacked.get(parameter), path)


def _named(expression: ast.expr | None, path: Path) -> str | None:
    rest = list(path)
    while rest:
        if isinstance(expression, ast.Tuple | ast.List) and isinstance(rest[0], int) and rest[0] < len(expression.elts):
            expression = expression.elts[rest.pop(0)]
        elif isinstance(expression, ast.Dict):
            key = rest.pop(0)
            values = zip(expression.keys, expression.values, strict=True)
            expression = next((v for k, v in values if isinstance(k, ast.Constant) and k.value == key), None)
        else:
            break
    return joined(expression.id, tuple(rest)) if isinstance(expression, ast.Name) else None
