"""Finds the roles of the axes of a graph's stream input: time, rows, features."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx_ir as ir

from export.adopt.flow import STATES, GraphFlow

__all__ = ["Axes", "axes_of", "table_of"]

_SAME = {
    *("Identity", "Cast", "Relu", "Tanh", "Sigmoid", "Neg", "Abs", "Sqrt", "Log", "Exp", "Clip", "Elu", "LeakyRelu"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Where", "BatchNormalization", "LayerNormalization", "Erf", "Gelu", "Not"),
    *("Pad", "Max", "Min", "Softmax", "PRelu", "HardSigmoid", "HardSwish", "Selu", "Softplus", "Mod"),
}
#: Operators that do not change token numbers.
_MOVED = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Slice"}
#: Most values that are traced.
_MOST = 2000

Mapping = tuple[int | None, ...]


@dataclass
class Axes:
    """Axes of the input, as the graph's operators take them. A set with two of them says nothing."""

    time: set[int] = field(default_factory=set)
    batch: set[int] = field(default_factory=set)
    features: set[int] = field(default_factory=set)


def axes_of(flow: GraphFlow, name: str, ends: Iterable[str] = ()) -> Axes:
    """``ends``: outputs that are states: a cache along time ends in one, features put side by side do not."""
    found = Axes()
    start = next(value for value in flow.model.graph.inputs if value.name == name)
    if start.shape is None:
        return found
    kept = _kept(flow, ends)
    stack: list[tuple[ir.Value, Mapping]] = [(start, tuple(range(len(start.shape))))]
    seen: set[tuple[int, Mapping]] = set()
    while stack and len(seen) < _MOST:
        value, lies = stack.pop()
        if (id(value), lies) in seen:
            continue
        seen.add((id(value), lies))
        for node, number in value.uses():
            after = _through(node, number, lies, found, kept)
            if after is not None and node.outputs:
                stack.append((node.outputs[0], after))
    return found


def table_of(flow: GraphFlow, name: str) -> int | None:
    """Rows of the table in which the numbers of input ``name`` are looked up, the smallest if there are several."""
    start = next(value for value in flow.model.graph.inputs if value.name == name)
    stack, seen, sizes = [start], {id(start)}, []
    while stack:
        value = stack.pop()
        for node, number in value.uses():
            if node.op_type == "Gather" and number == 1:
                table, axis = node.inputs[0], node.attributes.get_int("axis", 0)
                size = None if table is None or table.shape is None else table.shape[axis]
                if isinstance(size, int):
                    sizes.append(size)
            elif node.op_type == "OneHot" and number == 0 and node.inputs[1] is not None:
                depth = ir.convenience.get_const_tensor(node.inputs[1])
                if depth is not None:
                    sizes.append(int(depth.numpy().reshape(-1)[0]))
            elif node.op_type in _MOVED:
                for out in node.outputs:
                    if id(out) not in seen:
                        seen.add(id(out))
                        stack.append(out)
    return min(sizes, default=None)


def _kept(flow: GraphFlow, ends: Iterable[str]) -> set[int]:
    """Values that become states by being moved alone."""
    names = set(ends)
    stack = [value for value in flow.model.graph.outputs if value.name in names]
    seen = {id(value) for value in stack}
    while stack:
        node = stack.pop().producer()
        if node is not None and node.op_type in ("Identity", "Slice", "Gather", "Split", "Transpose", "Cast", "Concat"):
            for value in node.inputs:
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    stack.append(value)
    return seen


def _through(node: ir.Node, number: int, lies: Mapping, found: Axes, kept: set[int]) -> Mapping | None:
    """What ``node`` says of the axes, and how they lie behind it; ``None``: that is not known."""
    kind = node.op_type
    if kind in STATES and number == 0 and len(lies) == 3:
        first = node.attributes.get_int("layout", 0)
        # a recurrence over something else than time, as over frequency, begins with nothing
        carried = len(node.inputs) > 5 and node.inputs[5] is not None and not _constant(node, 5)
        if carried and node.attributes.get_string("direction", "forward") == "forward":
            _say(found.time, lies[first])
            _say(found.batch, lies[1 - first])
        _say(found.features, lies[2])
    elif kind == "Conv" and number == 0:
        if len(lies) == 3:
            _say(found.time, lies[2])
        _say(found.features, lies[1])
    elif kind == "MatMul" and number == 0 and _constant(node, 1):
        _say(found.features, lies[-1])
        return (*lies[:-1], None)
    elif kind == "Gemm" and number == 0 and not node.attributes.get_int("transA", 0):
        _say(found.features, lies[1])
        return (lies[0], None)
    elif kind == "Gather" and number == 1:
        return (*lies, None)
    elif kind == "Gather" and number == 0:  # one step of a loop that the exporter unrolled
        axis, index = node.attributes.get_int("axis", 0) % len(lies), node.inputs[1]
        which = None if index is None else ir.convenience.get_const_tensor(index)
        return lies[:axis] + lies[axis + 1 :] if which is not None and not tuple(which.shape) else None
    elif kind == "Slice" and number == 0:
        return lies
    elif kind == "Concat":
        axis = node.attributes.get_int("axis", 0) % len(lies)
        if id(node.outputs[0]) in kept and len(node.inputs) > 1:
            _say(found.time, lies[axis])
        return tuple(None if place == axis else at for place, at in enumerate(lies))
    elif kind == "Transpose":
        perm = node.attributes.get_ints("perm")
        order = tuple(perm) if perm is not None else tuple(reversed(range(len(lies))))
        return tuple(lies[axis] for axis in order) if len(order) == len(lies) else None
    elif kind in ("Unsqueeze", "Squeeze") and number == 0:
        return _squeezed(node, lies)
    elif kind in _SAME and len(node.outputs[0].shape or lies) == len(lies):
        return lies
    return None


def _say(axes: set[int], axis: int | None) -> None:
    if axis is not None:
        axes.add(axis)


def _constant(node: ir.Node, number: int) -> bool:
    value = node.inputs[number]
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _squeezed(node: ir.Node, lies: Mapping) -> Mapping | None:
    axes = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        axes = None if tensor is None else tensor.numpy().reshape(-1).tolist()
    if axes is None:
        return None
    if node.op_type == "Squeeze":
        gone = {axis % len(lies) for axis in axes}
        return tuple(at for place, at in enumerate(lies) if place not in gone)
    rank, rest = len(lies) + len(axes), iter(lies)
    new = {axis % rank for axis in axes}
    return tuple(None if place in new else next(rest) for place in range(rank))
