"""Names of tensors from the source of ``forward``, if it is available."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["SourceNames", "joined", "layer_names"]

Path = tuple[Any, ...]


def joined(name: str, path: Path) -> str:
    """``state``, ("k", 0) -> ``state.k.0``."""
    return ".".join(str(part) for part in (*([name] if name else []), *path))


class SourceNames:
    """Names from the source of ``forward``: ``return logits, (h, c)`` names an output and two states, ``h, c = state``
    the parts of a parameter. Without a source there are no names."""

    def __init__(self, module: nn.Module) -> None:
        self._returned: ast.expr | None = None
        self._unpacked: dict[str, ast.expr] = {}
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(type(module).forward)))
        except (OSError, TypeError, SyntaxError):  # the class was typed into a console, compiled or generated
            return
        for node in ast.walk(tree):
            if isinstance(node, ast.Return) and node.value is not None:
                self._returned = node.value
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
                self._unpacked[node.value.id] = node.targets[0]

    def returned(self, path: Path) -> str | None:
        """The name at ``path`` of the returned value."""
        return _named(self._returned, path)

    def unpacked(self, parameter: str, path: Path) -> str | None:
        """The name to which ``forward`` unpacks the part at ``path`` of ``parameter``."""
        return _named(self._unpacked.get(parameter), path)


def _named(expression: ast.expr | None, path: Path) -> str | None:
    """The name at ``path`` of an expression; ``None`` if there is none."""
    for part in path:
        if isinstance(expression, ast.Tuple | ast.List) and isinstance(part, int) and part < len(expression.elts):
            expression = expression.elts[part]
        elif isinstance(expression, ast.Dict):
            values = zip(expression.keys, expression.values, strict=True)
            expression = next((v for k, v in values if isinstance(k, ast.Constant) and k.value == part), None)
        else:
            return None
    return expression.id if isinstance(expression, ast.Name) else None


@contextmanager
def layer_names(module: nn.Module, wanted: Sequence[Any]) -> Iterator[dict[int, str]]:
    """Collects, while a call runs, names for those tensors among ``wanted`` that are a recurrent layer's state: index
    -> ``lstm.h``."""
    found: dict[int, str] = {}

    def hook(name: str) -> Any:
        def before(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[1] if len(args) > 1 else kwargs.get("hx")
            for part, tensor in zip(
                ("h", "c"), hidden if isinstance(hidden, tuple | list) else (hidden,), strict=False
            ):
                for number, state in enumerate(wanted):
                    if tensor is state:
                        found[number] = f"{name}.{part}" if name else part

        return before

    kinds = (nn.RNNBase, nn.RNNCellBase)
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kinds)]
    handles = [layer.register_forward_pre_hook(hook(name), with_kwargs=True) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
