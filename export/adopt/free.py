"""A batch of 1 that is written into a graph, freed: targets of Reshape, and constants that stand beside rows.

Shapes are inferred with a batch of :data:`MARK`, a prime that no model has as a size, so that every size which is a
multiple of it shows where the batch is. Behind a Reshape that has lost it, it is put back, and inference goes on from
there (:mod:`export.adopt.shapes`). This module does not check the result:
:mod:`export.adopt.batch` runs it.
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
#: More often than any operator has to be changed.
ROUNDS = 8
_RECURRENT = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


def declare(model: ir.Model, shapes: Shapes) -> None:
    """In place: the inputs have these shapes, and nothing is claimed of any other value."""
    for value in model.graph.inputs:
        value.shape = ir.Shape(shapes[str(value.name)])
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None


def inferred(model: ir.Model, shapes: Shapes) -> None:
    """In place: ``declare``, and what follows from it."""
    declare(model, shapes)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)


class ClashError(ValueError):
    """Rows meet something that can't be rows, at ``node``: the batch is not where it was taken to be."""

    def __init__(self, what: str, node: ir.Node) -> None:
        super().__init__(what)
        self.node = node


def free(model: ir.Model, marked: Shapes, stream: str, axis: int) -> int:
    """In place; how many operators were changed. ``marked``: shapes of the inputs with a batch of :data:`MARK`.

    ``stream``: the input whose ``axis`` is the batch. Raises :class:`ClashError`.
    """
    changed = 0
    within: dict[int, int] = {}  # by the other factor of a folded axis: how much of it stands before the batch
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
    if node.op_type == "Reshape":
        return "adopt.batch" not in node.meta and _reshape(node, within)
    if node.op_type in _RECURRENT and _stand_up(node):
        return True
    return _scatter(node) if node.op_type == "ScatterND" else _widen(node, rows)


def _check(node: ir.Node) -> None:
    """Sizes that can't be, with the batch where it was taken to be."""
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
    return [int(size) for size in value.shape or () if isinstance(size, int)]


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    sizes = tuple(size for size in value.shape if isinstance(size, int))
    return sizes if len(sizes) == len(value.shape) else None


def _batch_axis(sizes: tuple[int, ...] | None) -> int | None:
    """The only axis that is a multiple of the mark."""
    axes = [axis for axis, size in enumerate(sizes or ()) if size % MARK == 0 and size]
    return axes[0] if len(axes) == 1 else None


def _fixed(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _reshape(node: ir.Node, within: dict[int, int]) -> bool:
    """A constant target gets -1 where the batch goes, and plain sizes everywhere else."""
    target, sizes = _fixed(node.inputs[1]), _sizes(node.inputs[0])
    axis = _batch_axis(sizes)
    if target is None or sizes is None or axis is None:
        return False
    one = tuple(size // MARK if number == axis else size for number, size in enumerate(sizes))
    resolved = _resolve(target.tolist(), one, node.attributes.get_int("allowzero", 0) == 1)
    if resolved is None:
        return False
    places = _places(one, axis, resolved, within)
    if not places or _goes_there(target.tolist(), sizes, places[0], resolved):
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
    """Plain sizes at batch 1."""
    out = [sizes[n] if t == 0 and not allow_zero and n < len(sizes) else t for n, t in enumerate(target)]
    rest = math.prod(size for size in out if size != -1)
    if -1 in out:
        if not rest or math.prod(sizes) % rest:
            return None
        out[out.index(-1)] = math.prod(sizes) // rest
    return out if math.prod(out) == math.prod(sizes) else None


def _goes_there(target: list[int], sizes: tuple[int, ...], place: int, resolved: list[int]) -> bool:
    """The target as it is does the right thing with the marked batch."""
    found = _resolve(target, sizes, False)
    return found == [size * MARK if number == place else size for number, size in enumerate(resolved)]


def _before(sizes: tuple[int, ...], axis: int, within: dict[int, int]) -> int:
    """Elements that stand before the batch in the order of memory."""
    return math.prod(sizes[:axis]) * (within.get(sizes[axis], 1) if sizes[axis] > 1 else 1)


def _places(sizes: tuple[int, ...], axis: int, target: list[int], within: dict[int, int]) -> list[int]:
    """Axes of the target that may hold the batch, the likeliest first: as much stands before it as stood before it."""
    before = _before(sizes, axis, within)
    heads = [math.prod(target[:number]) for number in range(len(target))]
    exact = [number for number, head in enumerate(heads) if head == before]
    ones = [number for number in exact if target[number] == 1]
    if ones:
        return sorted(ones, key=lambda number: number != axis)
    # folded into an axis, in front of it or behind some of it
    inside = (n for n, head in enumerate(heads) if head < before < head * target[n] and before % head == 0)
    return exact[-1:] or list(inside)[:1]


def _scatter(node: ir.Node) -> bool:
    """Constant places that have the batch's 0 among their coordinates (how a slice is assigned): it is left out, and
    the batch stands behind all else meanwhile.

    data [B, ...], indices S + [k], updates S + data.shape[k:], S having a 1 where updates have the batch.
    """
    data, updates, indices = _sizes(node.inputs[0]), _sizes(node.inputs[2]), _fixed(node.inputs[1])
    at, where = _batch_axis(data), _batch_axis(updates)
    if data is None or updates is None or indices is None or at is None or where is None:
        return False
    if at >= indices.shape[-1]:
        return _shift(node, where, indices.ndim - 1 + at - indices.shape[-1], updates)
    if where >= indices.ndim - 1 or indices.shape[where] != 1 or indices[..., at].any():
        return False
    graph, last, old = node.graph, len(data) - 1, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    fewer = np.delete(indices.take(0, axis=where), at, axis=-1)
    for number, axis, rank in ((0, at, len(data)), (2, where, len(updates))):
        node.replace_input_with(number, _behind(node, number, axis, rank))
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


def _shift(node: ir.Node, axis: int, wanted: int, sizes: tuple[int, ...]) -> bool:
    """Updates whose batch a Reshape has put on another axis that begins at the same element: back there."""
    one = [size // MARK if number == axis else size for number, size in enumerate(sizes)]
    if axis == wanted or wanted >= len(one) or math.prod(one[:axis]) != math.prod(one[:wanted]):
        return False
    _laid_out(node, 2, [-1 if number == wanted else size for number, size in enumerate(one)])
    return True


def _stand_up(node: ir.Node) -> bool:
    """A recurrent layer takes its rows on axis 1: where a Reshape to [1, 1, n] put them on axis 0, they go there."""
    done = False
    for number in (0, *_RECURRENT[node.op_type]):
        sizes = _sizes(node.inputs[number]) if number < len(node.inputs) else None
        if sizes is not None and sizes[:2] == (MARK, 1):
            _laid_out(node, number, [1, -1, sizes[2]])
            done = True
    return done


def _laid_out(node: ir.Node, number: int, target: list[int]) -> None:
    """Input ``number`` in this shape."""
    shape = _constant(node, f"{node.outputs[0].name}.{number}.laid", np.array(target, np.int64))
    reshape = ir.node("Reshape", [node.inputs[number], shape])
    reshape.meta["adopt.batch"] = True  # decided: others go by their input alone
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, reshape)
    node.replace_input_with(number, reshape.outputs[0])


def _behind(node: ir.Node, number: int, axis: int, rank: int) -> ir.Value:
    """Input ``number`` with this axis behind all others."""
    perm = [*(a for a in range(rank) if a != axis), axis]
    turn = ir.node("Transpose", [node.inputs[number]], attributes={"perm": perm})
    assert isinstance(node.graph, ir.Graph)
    node.graph.insert_before(node, turn)
    return turn.outputs[0]


class _Rows:
    """The number of rows at run time, [1], computed once."""

    def __init__(self, model: ir.Model, stream: str, axis: int) -> None:
        self.model, self.axis = model, axis
        self.stream = next(value for value in model.graph.inputs if value.name == stream)

    def value(self, node: ir.Node) -> ir.Value:
        shape = ir.node("Shape", [self.stream])
        index = _constant(node, f"{node.outputs[0].name}.axis", np.array([self.axis], np.int64))
        rows = ir.node("Gather", [shape.outputs[0], index], attributes={"axis": 0})
        self.model.graph.insert_before(node, [shape, rows])
        return rows.outputs[0]


def _widen(node: ir.Node, rows: _Rows) -> bool:
    """Constants that a Concat puts beside rows, or that a recurrent layer starts from, are repeated for every row."""
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
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    while (there := _fixed(graph.initializers.get(name))) is not None and not np.array_equal(there, array):
        name += "'"
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    if name not in graph.initializers:
        graph.initializers.add(value)
    return graph.initializers[name]
