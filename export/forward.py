"""Finds how a module's ``forward`` is called: which parameter takes which tensor, and where the new state is returned.

It is inferred from the structure of the given states, the parameters of ``forward``, and one call.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from export.names import SourceNames, joined, layer_names

__all__ = ["DTYPES", "ExportError", "Forward", "bind", "leaves", "tensors"]

#: Dtypes that a manifest allows.
DTYPES = (
    torch.bool,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
)

Path = tuple[Any, ...]


class ExportError(ValueError):
    """The module can't be exported. The message has the reason, and the code to write instead."""


@dataclass(frozen=True)
class Forward:
    """``module`` with a flat interface: named inputs and a list of state tensors in, two lists of tensors out.

    ``parameters``: those that take the state, in order; empty if ``forward`` takes it as ``*args``.
    ``where_states``, ``where_outputs``: positions among the leaves of the returned value.
    """

    module: nn.Module
    inputs: tuple[str, ...]
    conditions: tuple[str, ...]
    parameters: tuple[str, ...]
    spec: pytree.TreeSpec
    state_names: tuple[str, ...]
    output_names: tuple[str, ...]
    where_states: tuple[int, ...]
    where_outputs: tuple[int, ...]

    def __call__(self, given: Mapping[str, Tensor], states: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """``given``: inputs and conditions by name. Returns (outputs, new states)."""
        result = call(self.module, given, self.parameters, pytree.tree_unflatten(list(states), self.spec))
        found = pytree.tree_leaves(result)
        return [found[i] for i in self.where_outputs], [found[i] for i in self.where_states]

    def text(self) -> str:
        """The call as source text, for messages."""
        state = ", ".join(self.state_names)
        several = len(self.parameters) == 1 and len(self.state_names) > 1
        given = ", ".join((*self.inputs, *self.conditions, *([f"({state})" if several else state] if state else [])))
        back = ", ".join((*self.output_names, *([f"({state})" if several else state] if state else [])))
        return f"forward({given}) -> {back}"


def call(module: nn.Module, given: Mapping[str, Tensor], parameters: Sequence[str], states: Any) -> Any:
    """Call ``module``. Inputs and states are passed by name, so the order of the parameters does not matter; ``*args``
    by position."""
    if len(parameters) == 1:
        return module(**given, **{parameters[0]: states})
    if parameters:
        each = states.values() if isinstance(states, Mapping) else states
        return module(**given, **dict(zip(parameters, each, strict=True)))
    if isinstance(states, tuple | list) and states:
        return module(*given.values(), *states)
    return module(**given)


def bind(
    module: nn.Module, inputs: Mapping[str, Tensor], conditions: Mapping[str, Tensor], states: Any
) -> tuple[Forward, list[Tensor]]:
    """How ``forward`` takes and returns ``states``, and their tensors in order.

    Raises :class:`ExportError` if no call of it succeeds, or if the returned state differs from the given one in
    structure, shape or dtype.
    """
    failures: list[str] = []
    mismatch: ExportError | None = None
    given = {**inputs, **conditions}
    for parameters, tree in _signatures(module, list(given), states):
        try:
            with torch.no_grad(), layer_names(module, pytree.tree_leaves(tree)) as layers:
                result = call(module, given, parameters, tree)
        except Exception as error:  # raised by the module, of any type
            failures.append(_line(error))
            continue
        try:
            where_states, where_outputs = _matched(result, tree)
        except ExportError as error:
            mismatch = mismatch or error
            continue
        found, spec = pytree.tree_flatten(tree)
        source = SourceNames(module)
        paths = [path for path, _ in leaves(tree)]
        back = [leaves(result)[i][0] for i in where_states]
        if len(parameters) == len(back) > 1:  # forward(x, h, c) may return y, c, h
            returned = [source.returned(path) for path in back]
            if sorted(parameters) == sorted(str(name) for name in returned):
                order = [returned.index(name) for name in parameters]
                where_states, back = [where_states[i] for i in order], [back[i] for i in order]
        state_names = _state_names(source, parameters, paths, back, layers)
        taken = {*given, *state_names}
        output_names = _output_names(source, [leaves(result)[i][0] for i in where_outputs], taken)
        forward = Forward(
            module,
            tuple(inputs),
            tuple(conditions),
            parameters,
            spec,
            state_names,
            output_names,
            tuple(where_states),
            tuple(where_outputs),
        )
        return forward, [tensor.detach() for tensor in found]
    raise mismatch or ExportError(
        f"forward{inspect.signature(module.forward)} can't be called with the example and the states: "
        + "; ".join(dict.fromkeys(failures))
    )


def _signatures(module: nn.Module, taken: list[str], states: Any) -> list[tuple[tuple[str, ...], Any]]:
    """Possible calls, the likeliest first: (parameters that take the state, the state in their structure)."""
    parameters = inspect.signature(module.forward).parameters.values()
    if strange := [n for n in taken if n not in {p.name for p in parameters if p.kind is not p.VAR_POSITIONAL}]:
        raise ExportError(
            f"forward{inspect.signature(module.forward)} has no parameter {', '.join(strange)}: examples and "
            "conditions by name must have the names of parameters"
        )
    plain = [p for p in parameters if p.name not in taken and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    free = [p for p in plain if p.default is p.empty or p.default is None]  # parameters with other defaults are options
    names = [p.name for p in free]
    needed = [p.name for p in free if p.default is p.empty]
    if states is None:
        return [((), ())]
    if isinstance(states, Mapping) and set(needed) <= set(states) <= set(names):
        ordered = [name for name in names if name in states]
        return [(tuple(ordered), {name: states[name] for name in ordered})]
    signatures: list[tuple[tuple[str, ...], Any]] = []
    if names and len(needed) <= 1:
        signatures.append(((names[0],), states))
    if isinstance(states, tuple | list) and len(needed) <= len(states) <= len(names):
        alone = len(states) == 1
        signatures.append((tuple(names[: len(states)]), states[0] if alone else tuple(states)))
    if not names and any(p.kind is p.VAR_POSITIONAL for p in parameters):
        signatures.append(((), tuple(states) if isinstance(states, tuple | list) else (states,)))
    if not signatures:
        count = len(states) if isinstance(states, tuple | list | dict) else 1
        raise ExportError(
            f"forward{inspect.signature(module.forward)} takes {len(names)} more than the example, {count} states are "
            "given: give as many as it takes, or a dictionary by the names of its parameters"
        )
    return signatures


def leaves(tree: Any) -> list[tuple[Path, Any]]:
    """Every leaf of a tree of tuples, lists, dictionaries and PyTorch's other containers, with its path: keys and
    indexes."""
    found, _ = pytree.tree_flatten_with_path(tree)
    return [(tuple(_key(key) for key in path), leaf) for path, leaf in found]


def _key(key: Any) -> Any:
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def _matched(result: Any, states: Any) -> tuple[list[int], list[int]]:
    """Positions of the new states and of the outputs among the leaves of ``result``."""
    found, wanted = leaves(result), leaves(states)
    if not wanted:
        return [], [i for i, (_, leaf) in enumerate(found) if isinstance(leaf, Tensor)]
    count = len(wanted)
    candidates = _by_structure(found, [path for path, _ in wanted])
    if len(found) >= count:  # states that are passed one by one are returned after the outputs
        candidates.append(list(range(len(found) - count, len(found))))
    for where in candidates:
        if all(_alike(old, found[i][1]) for (_, old), i in zip(wanted, where, strict=True)):
            outputs = [i for i, (_, leaf) in enumerate(found) if i not in where and isinstance(leaf, Tensor)]
            return where, outputs or where[:1]  # a cell returns nothing but its state, which is also its output
    if not candidates:
        raise ExportError(
            f"forward returns {_count(len(found), 'tensor')} and takes {_count(count, 'state')}: return every new "
            "state in the structure of the given one: return output, state"
        )
    raise ExportError(_difference(wanted, [found[i][1] for i in candidates[0]]))


def _by_structure(found: list[tuple[Path, Any]], wanted: list[Path]) -> list[list[int]]:
    """Parts of the result with the structure of the state, as positions of leaves: the last part first, then the whole
    result. A single tensor has no structure, so only the last part is a candidate."""
    candidates = []
    parts = list(dict.fromkeys(path[:1] for path, _ in reversed(found) if path))
    for prefix in (*(parts[:1] if wanted == [()] else parts), ()):
        part = {path[len(prefix) :]: i for i, (path, _) in enumerate(found) if path[: len(prefix)] == prefix}
        by_key = not prefix and all(path and isinstance(path[0], str) for path in wanted)
        if set(wanted) == set(part) or (by_key and set(wanted) <= set(part)):
            candidates.append([part[path] for path in wanted])
    return candidates


def _alike(old: Any, new: Any) -> bool:
    """Whether both are tensors of one shape and dtype."""
    return isinstance(new, Tensor) and isinstance(old, Tensor) and (old.shape, old.dtype) == (new.shape, new.dtype)


def _difference(wanted: list[tuple[Path, Any]], got: list[Any]) -> str:
    """How a returned state differs from the given one."""
    path, old, new = next(
        (path, old, new) for (path, old), new in zip(wanted, got, strict=True) if not _alike(old, new)
    )
    name = f"state {joined('', path)}" if path else "the state"
    if not isinstance(new, Tensor):
        return f"{name} comes back as {type(new).__name__}: return a tensor"
    was, now = (f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in (old, new))
    change = f"{name} goes in as {was} and comes back as {now}"
    longer = [axis for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=False)) if b > a]
    if old.dim() == new.dim() and longer and old.dtype == new.dtype:
        axis, keep = longer[0], old.shape[longer[0]] or 64
        cut = ", ".join([*[":"] * axis, f"-{keep}:"])
        return f"{change}: it grows with every call. Keep a window: state = torch.cat([state, new], dim={axis})[{cut}]"
    return f"{change}: a state keeps its shape and dtype, and forward returns it in the structure in which it takes it"


def _state_names(
    source: SourceNames, parameters: tuple[str, ...], paths: list[Path], back: list[Path], layers: Mapping[int, str]
) -> tuple[str, ...]:
    """Names of the states: the parameters', if each takes one tensor; else the names to which ``forward`` unpacks or
    from which it returns them; else those of the recurrent layers whose states they are."""
    if len(parameters) == len(paths) and (len(parameters) > 1 or paths == [()]):
        return parameters
    owner = parameters[0] if len(parameters) == 1 else ""
    names: list[str] = []
    for number, path in enumerate(paths):
        if len(parameters) > 1:
            which = path[0] if isinstance(path[0], str) else parameters[path[0]]
            names.append(_unique(joined(which, path[1:]), names))
            continue
        found = source.unpacked(owner, path) or source.returned(back[number])
        if path and all(isinstance(part, str) for part in path):
            found = joined("", path)
        names.append(_unique(found or layers.get(number) or joined(owner or "state", path), names))
    return tuple(names)


def _output_names(source: SourceNames, paths: list[Path], taken: set[str]) -> tuple[str, ...]:
    """Names of the outputs: their keys, or the names that ``forward`` returns; ``output`` where there is none."""
    names: list[str] = []
    for path in paths:
        found = path[-1] if path and isinstance(path[-1], str) else source.returned(path)
        plain = "output" if len(paths) == 1 else joined("output", path)
        name = plain if found is None or found in taken else found
        names.append(_unique(name, [*names, *taken]))
    return tuple(names)


def _unique(name: str, others: Sequence[str]) -> str:
    """``name``, with a number behind it if it is among ``others``."""
    found, number = name, 2
    while found in others:
        found, number = f"{name}_{number}", number + 1
    return found


def tensors(what: str, tree: Any) -> Any:
    """``tree`` with NumPy arrays converted to tensors on the CPU. Raises :class:`ExportError` for leaves that are
    neither, and for dtypes that a manifest does not allow; ``what`` names the tree in the message."""

    def one(leaf: Any) -> Tensor:
        if isinstance(leaf, np.ndarray):
            leaf = torch.from_numpy(leaf)
        if not isinstance(leaf, Tensor):
            raise ExportError(f"{what} holds {leaf!r}: give tensors, torch.tensor({leaf!r}) here")
        if leaf.dtype not in DTYPES:
            raise ExportError(f"{what} holds {leaf.dtype}, which a file can't hold: call .float() on it and the module")
        return leaf.detach().cpu()

    return pytree.tree_map(one, tree)


def _line(error: Exception) -> str:
    """The error's message as one line, cut to 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
