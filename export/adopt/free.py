"""Makes a batch that a graph fixes at 1 dynamic: in targets of Reshape, and in constants that are joined to rows.

Shapes are inferred with a batch of :data:`MARK`, a prime that no model has as a size: every size that is a multiple of
it contains the batch. After a Reshape that has lost the batch, it is restored, and inference continues from there
(:mod:`export.adopt.shapes`). This module does not check the result: :mod:`export.adopt.batch` runs it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from export.adopt.shapes import Walk

__all__ = ["MARK", "ClashError", "Shapes", "declare", "free", "inferred"]

Shapes = Mapping[str, tuple[int | str, ...]]

MARK = 9973
#: Maximum number of changes of one operator, more than any needs.
ROUNDS = 8
_RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


def declare(model: ir.Model, shapes: Shapes) -> None:
    """In place: set the shapes of the inputs, and remove those of all other values."""
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None


def inferred(model: ir.Model, shapes: Shapes) -> None:
    """In place: :func:`declare`, then infer the shapes of all values."""
    declare(model, shapes)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


class ClashError(ValueError):
    """The sizes at ``node`` are impossible, so the assumed batch axes are wrong."""

    def __init__(self, what: str, node: ir.Node) -> None:
        super().__init__(what)
        self.node = node


def free(model: ir.Model, marked: Shapes, stream: str, axis: int) -> int:
    """Make the batch dynamic, in place; returns the number of changed operators. ``marked``: shapes of the inputs with
    a batch of :data:`MARK`. ``stream``: the input whose ``axis`` is the batch. Raises :class:`ClashError`.
    """
    changed = 0
    # For an axis into which the batch is folded: the other factor of its size -> the part of it before the batch.
    within: dict[int, int] = {}
    declare(model, marked)
    walk, rows = Walk(model), _Rows(model, stream, axis)
    for node in list(model.graph):
        walk.node(node)
        for _ in range(ROUNDS):
            if not _change(node, within, rows):
                break
            changed += 1
            walk.node(node, again=True)
        _check(node)
    return changed


def _change(node: ir.Node, within: dict[int, int], rows: _Rows) -> bool:
    """Change one thing in the node or its inputs; returns whether there was anything to change."""
    if node.op_type == "Reshape":
        return "adopt.batch" not in node.meta and _reshape(node, within)
    if node.op_type in _RECURRENT and _move_rows(node):
        return True
    return _scatter(node) if node.op_type == "ScatterND" else _expand_constants(node, rows)


def _check(node: ir.Node) -> None:
    """Raise :class:`ClashError` for impossible sizes."""
    for value in node.outputs:
        axes = [size for size in _known(value) if size % MARK == 0 and size]
        if len(axes) > 1 or any(size % MARK**2 == 0 for size in axes):
            raise ClashError(f"{node.op_type} {node.name} makes {value.shape}", node)
    shapes = [_sizes(value) for value in node.inputs]
    if node.op_type in _RECURRENT and shapes[0] is not None:
        starts = [shapes[number] for number in _RECURRENT[node.op_type] if number < len(shapes)]
        if any(start is not None and start[1] != shapes[0][1] for start in starts):
            raise ClashError(f"{node.op_type} {node.name} of {shapes[0]} starts from {starts}", node)
    if node.op_type == "Concat" and None not in shapes:
        across = node.attributes.get_int("axis", 0) % max(len(shapes[0] or ()), 1)
        rests = {shape[:across] + shape[across + 1 :] for shape in shapes if shape is not None}
        if len(rests) > 1:
            raise ClashError(f"Concat {node.name} of {shapes}", node)


def _known(value: ir.Value) -> list[int]:
    """The known sizes of a value."""
    return [int(size) for size in value.shape or () if isinstance(size, int)]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """All sizes of a value; ``None`` if any is unknown."""
    if value is None or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    return sizes if len(sizes) == len(value.shape) else None


def _batch_axis(sizes: tuple[int, ...] | None) -> int | None:
    """The axis whose size is a multiple of the mark; ``None`` unless there is exactly one."""
    axes = [axis for axis, size in enumerate(sizes or ()) if size % MARK == 0 and size]
    return axes[0] if len(axes) == 1 else None


def _fixed(value: ir.Value | None) -> np.ndarray | None:
    """The array of a constant, else ``None``."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _reshape(node: ir.Node, within: dict[int, int]) -> bool:
    """Set a constant target to -1 at the batch, and to plain sizes elsewhere."""
    target, sizes = _fixed(node.inputs[1]), _sizes(node.inputs[0])
    axis = _batch_axis(sizes)
    if target is None or sizes is None or axis is None:
        return False
    one = tuple(size // MARK if number == axis else size for number, size in enumerate(sizes))
    resolved = _resolve(target.tolist(), one, node.attributes.get_int("allowzero", 0) == 1)
    if resolved is None:
        return False
    places = _places(one, axis, resolved, within)
    if not places or _is_right(target.tolist(), sizes, places[0], resolved):
        return False
    place = places[0]
    if resolved[place] > 1:
        within[resolved[place]] = _before(one, axis, within) // math.prod(resolved[:place])
    wanted = [-1 if number == place else size for number, size in enumerate(resolved)]
    name = f"{node.outputs[0].name}.target"
    node.replace_input_with(1, _constant(node, name, np.array(wanted, np.int64)))
    node.attributes.pop("allowzero", None)
    return True


def _resolve(target: list[int], sizes: tuple[int, ...], allow_zero: bool) -> list[int] | None:
    """The target's plain sizes at batch 1; ``None`` if the target does not fit ``sizes``."""
    out = [sizes[n] if t == 0 and not allow_zero and n < len(sizes) else t for n, t in enumerate(target)]
    rest = math.prod(size for size in out if size != -1)
    if -1 in out:
        if not rest or math.prod(sizes) % rest:
            return None
        out[out.index(-1)] = math.prod(sizes) // rest
    return out if math.prod(out) == math.prod(sizes) else None


def _is_right(target: list[int], sizes: tuple[int, ...], place: int, resolved: list[int]) -> bool:
    """Whether the unchanged target is right for the marked batch."""
    found = _resolve(target, sizes, False)
    return found == [size * MARK if number == place else size for number, size in enumerate(resolved)]


def _before(sizes: tuple[int, ...], axis: int, within: dict[int, int]) -> int:
    """The product of the sizes before the batch, in row-major order."""
    return math.prod(sizes[:axis]) * (within.get(sizes[axis], 1) if sizes[axis] > 1 else 1)


def _places(sizes: tuple[int, ...], axis: int, target: list[int], within: dict[int, int]) -> list[int]:
    """Axes of the target that may hold the batch, the likeliest first: the product of the sizes before it stays the
    same."""
    before = _before(sizes, axis, within)
    heads = [math.prod(target[:number]) for number in range(len(target))]
    exact = [number for number, head in enumerate(heads) if head == before]
    ones = [number for number in exact if target[number] == 1]
    if ones:
        return sorted(ones, key=lambda number: number != axis)
    # the batch is folded into an axis, before it or after a part of it
    inside = (n for n, head in enumerate(heads) if head < before < head * target[n] and before % head == 0)
    return exact[-1:] or list(inside)[:1]


def _scatter(node: ir.Node) -> bool:
    """Remove the batch's coordinate, 0, from constant indices (a slice assignment); the batch is the last axis of data
    and updates meanwhile.

    data [B, ...], indices S + [k], updates S + data.shape[k:]; S has a 1 where updates have the batch.
    """
    data, updates, indices = _sizes(node.inputs[0]), _sizes(node.inputs[2]), _fixed(node.inputs[1])
    at, where = _batch_axis(data), _batch_axis(updates)
    if data is None or updates is None or indices is None or at is None or where is None:
        return False
    if at >= indices.shape[-1]:
        return _restore_batch_axis(node, where, indices.ndim - 1 + at - indices.shape[-1], updates)
    if where >= indices.ndim - 1 or indices.shape[where] != 1 or indices[..., at].any():
        return False
    graph, last, old = node.graph, len(data) - 1, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    fewer = np.delete(indices.take(0, axis=where), at, axis=-1)
    for number, axis, rank in ((0, at, len(data)), (2, where, len(updates))):
        node.replace_input_with(number, _batch_last(node, number, axis, rank))
    node.replace_input_with(1, _constant(node, f"{old.name}.places", fewer))
    back = ir.node(
        "Transpose", [old], attributes={"perm": [last if a == at else a - (a > at) for a in range(last + 1)]}
    )
    new = back.outputs[0]
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    back.replace_input_with(0, old)
    graph.insert_after(node, back)
    new.name, old.name, new.type = old.name, f"{old.name}.behind", old.type
    return True


def _restore_batch_axis(node: ir.Node, axis: int, wanted: int, sizes: tuple[int, ...]) -> bool:
    """Move the batch of updates back to axis ``wanted``, if a Reshape has put it on another axis with the same product
    of sizes before it."""
    one = [size // MARK if number == axis else size for number, size in enumerate(sizes)]
    if axis == wanted or wanted >= len(one) or math.prod(one[:axis]) != math.prod(one[:wanted]):
        return False
    _reshape_input(node, 2, [-1 if number == wanted else size for number, size in enumerate(one)])
    return True


def _move_rows(node: ir.Node) -> bool:
    """Move the rows of a recurrent layer's inputs to axis 1, where a Reshape to [1, 1, n] has put them on axis 0."""
    done = False
    for number in (0, *_RECURRENT[node.op_type]):
        sizes = _sizes(node.inputs[number]) if number < len(node.inputs) else None
        if sizes is not None and sizes[:2] == (MARK, 1):
            _reshape_input(node, number, [1, -1, sizes[2]])
            done = True
    return done


def _reshape_input(node: ir.Node, number: int, target: list[int]) -> None:
    """Reshape input ``number`` of the node to ``target``."""
    shape = _constant(node, f"{node.outputs[0].name}.{number}.laid", np.array(target, np.int64))
    reshape = ir.node("Reshape", [node.inputs[number], shape])
    reshape.meta["adopt.batch"] = True  # its target is right
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, reshape)
    node.replace_input_with(number, reshape.outputs[0])


def _batch_last(node: ir.Node, number: int, axis: int, rank: int) -> ir.Value:
    """Input ``number`` of the node with ``axis`` as the last one."""
    perm = [*(a for a in range(rank) if a != axis), axis]
    turn = ir.node("Transpose", [node.inputs[number]], attributes={"perm": perm})
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, turn)
    return turn.outputs[0]


class _Rows:
    """Computes the number of rows at run time from the stream's ``axis``."""

    def __init__(self, model: ir.Model, stream: str, axis: int) -> None:
        self.model, self.axis = model, axis
        self.stream = next(value for value in model.graph.inputs if value.name == stream)

    def value(self, node: ir.Node) -> ir.Value:
        """The number of rows, [1], computed before ``node``."""
        shape = ir.node("Shape", [self.stream])
        index = _constant(node, f"{node.outputs[0].name}.axis", np.array([self.axis], np.int64))
        rows = ir.node("Gather", [shape.outputs[0], index], attributes={"axis": 0})
        self.model.graph.insert_before(node, [shape, rows])
        return rows.outputs[0]


def _expand_constants(node: ir.Node, rows: _Rows) -> bool:
    """Repeat constants for every row: those that a Concat joins to rows, and initial states of recurrent layers."""
    numbers = _RECURRENT.get(node.op_type, ())
    if node.op_type == "Concat":
        numbers = tuple(range(len(node.inputs)))
    sizes = [_sizes(value) for value in node.inputs]
    axis: int | None = 1
    if node.op_type == "Concat":
        axis = next((found for size in sizes if (found := _batch_axis(size)) is not None), None)
        rank = max((len(size) for size in sizes if size), default=0)
        if axis is None or axis == node.attributes.get_int("axis", 0) % max(rank, 1):
            return False
    elif not numbers or _batch_axis(sizes[0]) != 1:
        return False
    done = False
    for number in numbers:
        size = sizes[number] if number < len(sizes) else None
        if size is None or axis is None or axis >= len(size) or size[axis] != 1 or _fixed(node.inputs[number]) is None:
            continue
        value = node.inputs[number]
        parts: list[ir.Value] = []
        for place, part in enumerate(size):
            plain = _constant(node, f"{node.outputs[0].name}.{number}.{place}", np.array([part], np.int64))
            parts.append(rows.value(node) if place == axis else plain)
        shape = ir.node("Concat", parts, attributes={"axis": 0})
        wide = ir.node("Expand", [value, shape.outputs[0]])
        rows.model.graph.insert_before(node, [shape, wide])
        node.replace_input_with(number, wide.outputs[0])
        done = True
    return done


def _constant(node: ir.Node, name: str, array: np.ndarray) -> ir.Value:
    """An initialiser of the node's graph; one of the same name and content is reused."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    while (there := _fixed(graph.initializers.get(name))) is not None and not np.array_equal(there, array):
        name += "'"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    if name not in graph.initializers:
        graph.initializers.add(value)
    return graph.initializers[name]
