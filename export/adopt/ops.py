"""Builds operators around a foreign graph in execution order; only operators with one meaning in every opset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from export.adopt.layout import AxisLayout

__all__ = ["Ops"]


#: dtypes for which the runtime has no ``Where`` -> wider ones that it has.
_CHOSEN_AS = {"bool": "uint8", "int8": "int32", "int16": "int32", "float16": "float32"}


class Ops:
    """Collects the nodes and initialisers of a graph. A call appends an operator and returns its output."""

    def __init__(self, name: str = "adopt") -> None:
        self.name = name
        self.nodes: list[ir.Node] = []
        self.initial: list[ir.Value] = []

    def __call__(self, kind: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes=attributes or None)
        node.name = f"{self.name}/{kind.lower()}.{len(self.nodes)}"
        node.outputs[0].name = f"{node.name}.y"
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, array: Any, dtype: Any = np.int64) -> ir.Value:
        """A new initialiser."""
        name = f"{self.name}/constant.{len(self.initial)}"
        data = np.ascontiguousarray(array, dtype)
        tensor = ir.tensor(data, name=name)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(data.shape), type=ir.TensorType(tensor.dtype))
        self.initial.append(value)
        return value

    def graph(self, model: ir.Model, given: Mapping[str, ir.Value], prefix: str) -> dict[str, ir.Value]:
        """Append all nodes of ``model``, with ``given`` as its inputs; returns its outputs by name. Consumes ``model``.

        ``prefix``: is put before all names, so that two graphs have no name in common.
        """
        graph = model.graph
        outputs = {str(value.name): value for value in graph.outputs}
        for value in list(graph.inputs):
            value.replace_all_uses_with(given[str(value.name)])
        graph.inputs.clear()
        graph.outputs.clear()
        nodes, initial = list(graph), list(graph.initializers.values())
        graph.initializers.clear()
        graph.remove(nodes)
        for value in [*initial, *(value for node in nodes for value in node.outputs)]:
            value.name = f"{prefix}{value.name}" if value.name else value.name
        self.nodes += nodes
        self.initial += initial
        return outputs

    # -- common operators ----------------------------------------------------------------------------------------------

    def cast(self, x: ir.Value, dtype: str) -> ir.Value:
        return self("Cast", x, to=ir.DataType.from_numpy(np.dtype(dtype)).value)

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        return self("Reshape", x, self.constant(shape))

    def join(self, *parts: ir.Value, axis: int) -> ir.Value:
        return self("Concat", *parts, axis=axis)

    def cut(self, x: ir.Value, start: int, stop: int, axis: int) -> ir.Value:
        """``Slice`` of one axis."""
        return self("Slice", x, *(self.constant([number]) for number in (start, stop, axis)))

    def choose(self, condition: ir.Value, yes: ir.Value, no: ir.Value, dtype: str) -> ir.Value:
        """``Where`` for any dtype; the runtime has it for few."""
        wide = _CHOSEN_AS.get(dtype)
        if wide is None:
            return self("Where", condition, yes, no)
        return self.cast(self("Where", condition, self.cast(yes, wide), self.cast(no, wide)), dtype)

    def inward(self, x: ir.Value, layout: AxisLayout) -> ir.Value:
        """Convert from canonical to raw (:mod:`export.adopt.layout`)."""
        kept = sorted(layout.order)
        if kept != list(range(len(layout.shape) + 1)):
            x = self.reshape(x, [-1 if axis == 0 else layout.shape[axis - 1] for axis in kept])
        x = self._turn(x, [kept.index(axis) for axis in layout.order])
        return x if all(len(group) == 1 for group in layout.groups) else self.reshape(x, layout.raw)

    def outward(self, x: ir.Value, layout: AxisLayout) -> ir.Value:
        """Convert from raw to canonical."""
        if not all(len(group) == 1 for group in layout.groups):
            x = self.reshape(x, layout.split)
        x = self._turn(x, [layout.order.index(axis) for axis in sorted(layout.order)])
        if sorted(layout.order) == list(range(len(layout.shape) + 1)):
            return x
        return self.reshape(x, (-1 if layout.batched else 1, *layout.shape))

    def _turn(self, x: ir.Value, order: Sequence[int]) -> ir.Value:
        return x if list(order) == sorted(order) else self("Transpose", x, perm=list(order))
