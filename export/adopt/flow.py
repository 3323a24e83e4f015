"""Data flow of a graph: which input and output form a state, and which recurrences keep no state between calls.

LSTM, GRU, RNN, Scan and Loop define which input is the initial state and which output the final one. Both are traced to
the graph's inputs and outputs through operators that only move data. In a cell of plain arithmetic a state mostly
reaches its own next value through fewer and simpler operators than the next value of another state.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

__all__ = ["GraphFlow", "Recurrence"]

#: Operators that only move data, and the inputs whose data they move; ``None``: all.
_MOVES: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Identity", "Slice", "Gather", "GatherND", "GatherElements", "Split", "Transpose"), (0,)),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand", "Cast", "CastLike", "Tile"), (0,)),
    **dict.fromkeys(("ReverseSequence", "Pad", "Trilu"), (0,)),
    "Concat": None,
    "ScatterND": (0, 2),
    "ScatterElements": (0, 2),
    "Where": (1, 2),
}
#: Moving operators that join new data to the moved data; without any, a state would never change.
_JOINS = {"Concat", "ScatterND", "ScatterElements", "Where", "Pad"}
_LINEAR = {"Add", "Sub", "Mul", "Div", "Sum", "Neg"}
_MIXES = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "MultiHeadAttention", "FusedMatMul"}
#: Operators whose results depend on a tensor's size only, not on its contents.
_SIZES = {"Shape", "Size", "ConstantOfShape", "RandomNormalLike", "RandomUniformLike", "EyeLike"}
#: Inputs and outputs of a recurrent operator that hold its first and its last state.
STATES = {"LSTM": ((5, 1), (6, 2)), "GRU": ((5, 1),), "RNN": ((5, 1),)}
#: Cost of an operator on a path: nothing for moving data, little for arithmetic, much for mixing everything.
_MOVE, _JOIN, _ADD, _OTHER, _MIX = 0, 1, 3, 10, 100


@dataclass(frozen=True)
class Recurrence:
    """A state of a recurrent operator. ``start``: its initial value in every call, ``None``: zeros. ``what``: the name
    of that input. ``over`` and ``axis``: the tensor and the axis along which the operator recurs; ``None`` for a Loop,
    which recurs over its trip count."""

    node: ir.Node
    start: ir.Value | None
    what: str
    over: ir.Value | None
    axis: int | None

    @property
    def name(self) -> str:
        return f"{self.node.op_type} {self.node.name or self.node.outputs[0].name}"


@dataclass
class GraphFlow:
    """The data flow of one model, with its functions inlined."""

    model: ir.Model
    _successors: dict[int, list[tuple[ir.Value, int, bool]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.model.graph.all_nodes():
            for source, target, cost, carries in _edges(node):
                self._successors.setdefault(id(source), []).append((target, cost, carries))

    @cached_property
    def outputs(self) -> dict[int, str]:
        return {id(value): str(value.name) for value in self.model.graph.outputs}

    def carried(self, name: str) -> list[str]:
        """Outputs that hold the next value of the input ``name``, according to a recurrent operator."""
        start = self._input(name)
        seen, stack, found = {(id(start), False)}, [(start, False)], []
        while stack:
            value, through = stack.pop()
            if through and id(value) in self.outputs:
                found.append(self.outputs[id(value)])
            for target, cost, carries in self._successors.get(id(value), ()):
                mark = (id(target), through or carries)
                if cost <= _JOIN and mark not in seen:
                    seen.add(mark)
                    stack.append((target, mark[1]))
        return sorted(set(found))

    def costs(self, name: str) -> dict[str, int]:
        """The cost of the cheapest path from the input ``name`` to each output that it reaches with a change."""
        start = self._input(name)
        best, found = {id(start): 0}, {}
        queue: list[tuple[int, int, ir.Value]] = [(0, 0, start)]
        count = 0
        while queue:
            cost, _, value = heapq.heappop(queue)
            if cost > best[id(value)]:
                continue
            if cost and id(value) in self.outputs:
                found[self.outputs[id(value)]] = cost
            for target, more, _ in self._successors.get(id(value), ()):
                total = cost + more
                if total < best.get(id(target), 1 << 60):
                    best[id(target)] = total
                    count += 1
                    heapq.heappush(queue, (total, count, target))
        return found

    def reached(self, names: Iterable[str]) -> set[int]:
        """Ids of the values that depend on the contents of any of these inputs."""
        stack = [self._input(name) for name in names]
        seen = {id(value) for value in stack}
        while stack:
            for target, _, _ in self._successors.get(id(stack.pop()), ()):
                if id(target) not in seen:
                    seen.add(id(target))
                    stack.append(target)
        return seen

    def forgetful(self) -> list[Recurrence]:
        """States of recurrent operators that start from a constant in every call, and thus forget the call before."""
        reached = self.reached(str(value.name) for value in self.model.graph.inputs)
        return [
            found
            for node in self.model.graph.all_nodes()
            for found in _recurrences(node)
            if found.start is None or id(found.start) not in reached
        ]

    def backward(self, names: Iterable[str]) -> list[tuple[ir.Node, str]]:
        """Recurrent nodes whose backward direction starts from one of these inputs, and that input."""
        starts = {name: self._moved(self._input(name)) for name in names}
        return [
            (node, name)
            for node in self.model.graph.all_nodes()
            if node.op_type in STATES and node.attributes.get_string("direction", "forward") != "forward"
            for number, _ in STATES[node.op_type]
            for name, moved in starts.items()
            if number < len(node.inputs) and id(_last_direction(node, node.inputs[number])) in moved
        ]

    def _moved(self, start: ir.Value) -> set[int]:
        """Ids of the values that hold the data of ``start``, apart from what recurrent operators make of it."""
        seen, stack = {id(start)}, [start]
        while stack:
            for target, cost, carries in self._successors.get(id(stack.pop()), ()):
                if cost <= _JOIN and not carries and id(target) not in seen:
                    seen.add(id(target))
                    stack.append(target)
        return seen

    def unused(self, name: str) -> bool:
        """Whether no operator takes the input ``name``, and it is not an output."""
        value = self._input(name)
        return not value.uses() and id(value) not in self.outputs

    def _input(self, name: str) -> ir.Value:
        return next(value for value in self.model.graph.inputs if value.name == name)


# -- operators ---------------------------------------------------------------------------------------------------------


def _edges(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value, int, bool]]:
    """Edges of a node: input, output, cost, and whether they are one state of a recurrent operator."""
    kind = node.op_type
    if kind in _SIZES:
        return
    if kind in STATES:
        own = dict(STATES[kind])
        for number, source in enumerate(node.inputs):
            for place, target in enumerate(node.outputs):
                if source is not None:
                    is_state = own.get(number) == place
                    yield source, target, _MOVE if is_state else _MIX, is_state
    elif kind == "If":
        for body in _bodies(node):
            for inner, target in zip(body.outputs, node.outputs, strict=False):
                yield inner, target, _MOVE, False
    elif kind in ("Loop", "Scan"):
        yield from _loop_edges(node)
    else:
        moved = _MOVES.get(kind, ())
        for number, source in enumerate(node.inputs):
            if source is None:
                continue
            cost = _MIX if kind in _MIXES else _ADD if kind in _LINEAR else _OTHER
            if kind in _MOVES:
                moves = moved is None or number in moved
                cost = (_JOIN if kind in _JOINS else _MOVE) if moves else _MIX
            for target in node.outputs:
                yield source, target, cost, False


def _loop_edges(node: ir.Node) -> Iterator[tuple[ir.Value, ir.Value, int, bool]]:
    """Edges of a Loop or a Scan: into its body, out of it, and from a state's input to its output."""
    body, first, states = _body(node)
    given = node.inputs[first:]
    skipped = 2 if node.op_type == "Loop" else 0
    for inner, source in zip(body.inputs[skipped:], given, strict=False):
        if source is not None:
            yield source, inner, _MOVE, False
    body_outputs = body.outputs[1:] if node.op_type == "Loop" else body.outputs
    for inner, target in zip(body_outputs, node.outputs, strict=False):
        yield inner, target, _MOVE, False
    for number in range(min(states, len(node.outputs))):
        source = given[number]
        if source is not None:
            yield source, node.outputs[number], _MOVE, True


def _body(node: ir.Node) -> tuple[ir.Graph, int, int]:
    """The repeated graph, the index of the first input that goes into it, and the number of its states."""
    body = next(_bodies(node))
    if node.op_type == "Loop":
        return body, 2, len(node.inputs) - 2
    scanned = node.attributes.get_int("num_scan_inputs", 0)
    return body, 0, len(node.inputs) - scanned


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()


def _recurrences(node: ir.Node) -> Iterator[Recurrence]:
    """The node's recurrences that can continue from call to call; bidirectional and backward ones can't."""
    if node.op_type in STATES:
        if node.attributes.get_string("direction", "forward") != "forward":
            return
        axis = 1 if node.attributes.get_int("layout", 0) else 0
        for (number, _), what in zip(STATES[node.op_type], ("initial_h", "initial_c"), strict=False):
            start = node.inputs[number] if number < len(node.inputs) else None
            yield Recurrence(node, start, what, node.inputs[0], axis)
    elif node.op_type in ("Loop", "Scan"):
        body, first, states = _body(node)
        inner = body.inputs[2:] if node.op_type == "Loop" else body.inputs
        body_outputs = body.outputs[1:] if node.op_type == "Loop" else body.outputs
        for number in range(states):
            before, after, start = inner[number], body_outputs[number], node.inputs[first + number]
            floats = after.dtype is None or after.dtype.is_floating_point()
            if after is before or not floats or (start is not None and _is_empty(start)):
                continue
            over, axis = None, None
            if node.op_type == "Scan" and states < len(node.inputs):
                over = node.inputs[states]
                axes = node.attributes.get("scan_input_axes")
                axis = int(axes.as_ints()[0]) if isinstance(axes, ir.Attr) else 0
            yield Recurrence(node, start, f"state {before.name}", over, axis)


def _last_direction(node: ir.Node, start: ir.Value | None) -> ir.Value | None:
    """The start of the node's last direction, if the graph joins it from the starts of both, else the whole start."""
    joined = None if start is None else start.producer()
    axis = 1 if node.attributes.get_int("layout", 0) else 0
    if joined is not None and joined.op_type == "Concat" and joined.attributes.get_int("axis", 0) % 3 == axis:
        return joined.inputs[-1]
    return start


def _is_empty(value: ir.Value) -> bool:
    """Whether the value is an empty list or tensor, which a loop fills."""
    tensor = ir.convenience.get_const_tensor(value)
    return (tensor is not None and tensor.size == 0) or isinstance(value.type, ir.SequenceType)
