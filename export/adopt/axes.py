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
#: Operators that do not change the values of token numbers.
_MOVED = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Slice"}
#: Maximum number of values that are traced.
_MOST = 2000

#: For each axis of a value the axis of the input that it comes from, ``None``: no single one.
Origins = tuple[int | None, ...]


@dataclass
class Axes:
    """Axes of the input in the roles that the graph's operators give them. A set with several axes is no evidence."""

    time: set[int] = field(default_factory=set)
    batch: set[int] = field(default_factory=set)
    features: set[int] = field(default_factory=set)


def axes_of(flow: GraphFlow, name: str, ends: Iterable[str] = ()) -> Axes:
    """The roles of the axes of the input ``name``. ``ends``: outputs that are states; a Concat along time leads to one,
    a Concat of features does not."""
    found = Axes()
    start = next(value for value in flow.model.graph.inputs if value.name == name)
    if start.shape is None:
        return found
    kept = _kept(flow, ends)
    stack: list[tuple[ir.Value, Origins]] = [(start, tuple(range(len(start.shape))))]
    seen: set[tuple[int, Origins]] = set()
    while stack and len(seen) < _MOST:
        value, origins = stack.pop()
        if (id(value), origins) in seen:
            continue
        seen.add((id(value), origins))
        for node, number in value.uses():
            after = _propagate(node, number, origins, found, kept)
            if after is not None and node.outputs:
                stack.append((node.outputs[0], after))
    return found


def table_of(flow: GraphFlow, name: str) -> int | None:
    """The number of rows of the table that the integer input ``name`` indexes, the smallest of several; ``None``: it
    indexes none."""
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
    """Ids of the values that reach a state's output through moving operators alone."""
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


def _propagate(node: ir.Node, number: int, origins: Origins, found: Axes, kept: set[int]) -> Origins | None:
    """Add to ``found`` the roles that ``node`` gives to axes. Returns, for each axis of its output, the input's axis it
    comes from; ``None`` if that is not known. ``origins``: the same for its input ``number``."""
    kind = node.op_type
    if kind in STATES and number == 0 and len(origins) == 3:
        first = node.attributes.get_int("layout", 0)
        # a recurrence over another axis, such as frequency, starts from a constant
        carried = len(node.inputs) > 5 and node.inputs[5] is not None and not _constant(node, 5)
        if carried and node.attributes.get_string("direction", "forward") == "forward":
            _add(found.time, origins[first])
            _add(found.batch, origins[1 - first])
        _add(found.features, origins[2])
    elif kind == "Conv" and number == 0:
        if len(origins) == 3:
            _add(found.time, origins[2])
        _add(found.features, origins[1])
    elif kind == "MatMul" and number == 0 and _constant(node, 1):
        _add(found.features, origins[-1])
        return (*origins[:-1], None)
    elif kind == "Gemm" and number == 0 and not node.attributes.get_int("transA", 0):
        _add(found.features, origins[1])
        return (origins[0], None)
    elif kind == "Gather" and number == 1:
        return (*origins, None)
    elif kind == "Gather" and number == 0:  # one step of a loop that the exporter unrolled
        axis, index = node.attributes.get_int("axis", 0) % len(origins), node.inputs[1]
        which = None if index is None else ir.convenience.get_const_tensor(index)
        return origins[:axis] + origins[axis + 1 :] if which is not None and not tuple(which.shape) else None
    elif kind == "Slice" and number == 0:
        return origins
    elif kind == "Concat":
        axis = node.attributes.get_int("axis", 0) % len(origins)
        if id(node.outputs[0]) in kept and len(node.inputs) > 1:
            _add(found.time, origins[axis])
        return tuple(None if place == axis else at for place, at in enumerate(origins))
    elif kind == "Transpose":
        perm = node.attributes.get_ints("perm")
        order = tuple(perm) if perm is not None else tuple(reversed(range(len(origins))))
        return tuple(origins[axis] for axis in order) if len(order) == len(origins) else None
    elif kind in ("Unsqueeze", "Squeeze") and number == 0:
        return _squeezed(node, origins)
    elif kind in _SAME and len(node.outputs[0].shape or origins) == len(origins):
        return origins
    return None


def _add(axes: set[int], axis: int | None) -> None:
    if axis is not None:
        axes.add(axis)


def _constant(node: ir.Node, number: int) -> bool:
    value = node.inputs[number]
    return value is not None and ir.convenience.get_const_tensor(value) is not None


def _squeezed(node: ir.Node, origins: Origins) -> Origins | None:
    """The origins after a Squeeze or an Unsqueeze; ``None`` if its axes are not constant."""
    axes = node.attributes.get_ints("axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = ir.convenience.get_const_tensor(node.inputs[1])
        axes = None if tensor is None else tensor.numpy().reshape(-1).tolist()
    if axes is None:
        return None
    if node.op_type == "Squeeze":
        gone = {axis % len(origins) for axis in axes}
        return tuple(at for place, at in enumerate(origins) if place not in gone)
    rank, rest = len(origins) + len(axes), iter(origins)
    new = {axis % rank for axis in axes}
    return tuple(None if place in new else next(rest) for place in range(rank))
