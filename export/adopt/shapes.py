"""Incremental shape inference: shapes of a graph's values, operator by operator, in execution order.

Inference over a whole graph takes a second for some thousand operators, which is too long after each change. Here a
change costs the inference of one operator. Sizes are plain numbers, so values computed from them, such as the target of
a Reshape, are known, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

__all__ = ["Walk"]

#: Operators that compute with sizes. They are evaluated if all inputs are known and small (``_MOST`` elements).
_SIZES = {
    *("Gather", "Slice", "Concat", "Unsqueeze", "Squeeze", "Cast", "Add", "Sub", "Mul", "Div", "Identity", "Reshape"),
    *("ConstantOfShape", "Equal", "Where", "Range", "Expand", "ReduceProd", "Min", "Max", "Mod", "Not", "And", "Or"),
    *("Greater", "Less", "Floor", "Ceil", "Neg", "Abs", "Flatten", "Transpose", "Size", "Split", "Tile"),
}
_MOST = 1024


class Walk:
    """Infers shapes from those of the model's inputs: :meth:`node` sets the shapes of one operator's outputs, in
    place."""

    def __init__(self, model: ir.Model) -> None:
        self.model = model
        self.versions = dict(model.opset_imports)
        self._imports = [onnx.helper.make_opsetid(domain, version) for domain, version in self.versions.items()]
        self._data: dict[int, NDArray[Any]] = {}
        self._done: set[int] = set()

    def node(self, node: ir.Node, *, again: bool = False) -> None:
        """Infer the outputs of an operator, after those of operators before it. ``again``: it was changed."""
        if id(node) in self._done and not again:
            return
        self._done.add(id(node))
        for value in node.inputs:
            before = None if value is None else value.producer()
            if before is not None:
                self.node(before)
        for value in node.outputs:
            self._data.pop(id(value), None)
        self._compute(node)
        if not all(id(value) in self._data for value in node.outputs):
            self._infer(node)

    def _known(self, value: ir.Value | None) -> NDArray[Any] | None:
        """The contents of a small value, if they are known."""
        if value is None:
            return None
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None:
            return tensor.numpy() if tensor.size <= _MOST else None
        return self._data.get(id(value))

    def _compute(self, node: ir.Node) -> None:
        """Evaluate an operator on sizes, if its inputs are known."""
        if node.op_type == "Shape" and node.domain == "":
            shape = node.inputs[0].shape if node.inputs[0] is not None else None
            sizes = [size for size in shape or () if isinstance(size, int)]
            if shape is not None and len(sizes) == len(shape):
                cut = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes)))
                self._set(node.outputs[0], np.array(sizes[cut], np.int64))
            return
        if node.op_type not in _SIZES or node.domain != "":
            return
        given = [self._known(value) for value in node.inputs]
        if any(array is None and value is not None for array, value in zip(given, node.inputs, strict=True)):
            return
        if (
            node.op_type in ("ConstantOfShape", "Expand")
            and int(np.prod(given[-1] if given[-1] is not None else 1)) > _MOST
        ):
            return
        try:
            feeds = {str(v.name): a for v, a in zip(node.inputs, given, strict=True) if v is not None and a is not None}
            proto = ir.serde.serialize_node(node)
            got = ReferenceEvaluator(proto).run(None, feeds)
        except Exception:  # the value stays unknown
            return
        for value, array in zip(node.outputs, got, strict=False):
            if isinstance(array, np.ndarray | np.generic) and np.asarray(array).size <= _MOST:
                self._set(value, np.asarray(array))

    def _set(self, value: ir.Value, array: NDArray[Any]) -> None:
        self._data[id(value)] = array
        value.shape = ir.Shape(array.shape)
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))

    def _infer(self, node: ir.Node) -> None:
        """Infer the shapes of an operator's outputs from those of its inputs."""
        for value in node.outputs:
            value.shape = None
        types, data = {}, {}
        for source in node.inputs:
            if source is None:
                continue
            if source.dtype is None:
                return
            shape = None if source.shape is None else [size if isinstance(size, int) else None for size in source.shape]
            types[str(source.name)] = onnx.helper.make_tensor_type_proto(source.dtype.value, shape)
            array = self._known(source)
            if array is not None:
                data[str(source.name)] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), str(source.name))
        try:
            schema = onnx.defs.get_schema(node.op_type, self.versions.get(node.domain, 1), node.domain)
            found = onnx.shape_inference.infer_node_outputs(
                schema, ir.serde.serialize_node(node), types, data, None, self._imports, self.model.ir_version
            )
        except Exception:  # an operator of the runtime's own domain, or impossible sizes
            return
        for value in node.outputs:
            tensor = found[str(value.name)].tensor_type if str(value.name) in found else None
            if tensor is None or not tensor.elem_type:
                continue
            value.type = ir.TensorType(ir.DataType(tensor.elem_type))
            if tensor.HasField("shape"):
                sizes = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim]
                value.shape = ir.Shape(sizes)
