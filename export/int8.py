"""Quantisation that keeps the company law: weights scaled per output channel, activations per row.

``quantize_dynamic`` computes an activation's scale over the whole batch, so a loud stream changes the rounding of all
others. Here every row (one step of one stream) is scaled by its own largest value, in plain operators. An LSTM's
recurrent product needs no measured scale, since its hidden state is in (-1, 1); it is unrolled over a chunk's steps.

Activations are uint8 around 128, since onnxruntime has no fast kernel for int8 x int8 on x86. Weights are int8 of 7
bits: processors with AVX2 and without VNNI add two products in 16 bits, which saturates silently with 8 bits.

Products with trained weights and LSTMs are quantised. Front end, normaliser, layer norms and gates stay float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

__all__ = ["quantise"]

#: Largest weight: 2 * 255 * 64 < 2**15, the 16-bit sum that must not saturate.
WEIGHT_LIMIT = 64
ZERO = 128
#: Minimum number of elements of a weight; smaller products cost more to quantise than they save.
SMALLEST = 4096


class _Graft:
    """New nodes in front of one old node, with readable value names."""

    def __init__(self, model: ir.Model, anchor: ir.Node, name: str) -> None:
        self.model, self.anchor, self.name, self.count = model, anchor, name, 0

    def op(self, kind: str, *inputs: ir.Value, outputs: int = 1, **attributes: int) -> ir.Value:
        """Insert a node; returns its first output."""
        return self.ops(kind, *inputs, outputs=outputs, **attributes)[0]

    def ops(self, kind: str, *inputs: ir.Value, outputs: int = 1, **attributes: int) -> tuple[ir.Value, ...]:
        """Insert a node; returns its outputs."""
        node = ir.node(kind, list(inputs), attributes=attributes or None, num_outputs=outputs)
        for value in node.outputs:
            value.name = f"{self.name}.{kind.lower()}.{self.count}"
            self.count += 1
        self.model.graph.insert_before(self.anchor, node)
        return tuple(node.outputs)

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """An initialiser: shared by all grafts if its name starts with ``/``, else this graft's own."""
        full = f"int8{name}" if name.startswith("/") else f"{self.name}.{name}"
        if full not in self.model.graph.initializers:
            tensor = ir.tensor(np.ascontiguousarray(array), name=full)
            self.model.graph.initializers.add(
                ir.Value(name=full, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
            )
        return self.model.graph.initializers[full]

    def axes(self, *axes: int) -> ir.Value:
        return self.constant(f"/axes{axes}", np.array(axes, np.int64))

    def product(
        self, quantised: ir.Value, scale: ir.Value | None, weights: NDArray[np.float32], static: float = 1.0
    ) -> ir.Value:
        """uint8 rows times ``weights`` [K, N] as float32, multiplied by the scale of the rows (or ``static``) and that
        of the channels."""
        each = np.maximum(np.abs(weights).max(axis=0), 1e-12) / WEIGHT_LIMIT
        small = np.clip(np.round(weights / each), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)
        whole = self.op(
            "MatMulInteger", quantised, self.constant("weight", small), self.constant("/zero", np.array(ZERO, np.uint8))
        )
        y = self.op("Cast", whole, to=ir.DataType.FLOAT)
        if scale is not None:
            y = self.op("Mul", y, scale)
        return self.op("Mul", y, self.constant("scale", (each * static).astype(np.float32)))

    def rows(self, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Quantise rows, each by its own largest value: float32 [..., K] -> (uint8 [..., K], scale [..., 1])."""
        largest = self.op("ReduceMax", self.op("Abs", x), self.axes(-1), keepdims=1)
        scale = self.op(
            "Mul",
            self.op("Max", largest, self.constant("/tiny", np.array(1e-30, np.float32))),
            self.constant("/127th", np.array(1 / 127, np.float32)),
        )
        return self.uint8(self.op("Div", x, scale)), scale

    def uint8(self, x: ir.Value, scale: float = 1.0) -> ir.Value:
        return self.op(
            "QuantizeLinear",
            x,
            self.constant(f"/scale{scale:.6f}", np.array(scale, np.float32)),
            self.constant("/zero", np.array(ZERO, np.uint8)),
        )


def quantise(model: ir.Model, learned: set[str], cell_limit: float | None = None) -> int:
    """Quantise ``model`` in place; returns the number of rewritten nodes. ``learned``: names of trained matrices
    (:func:`export.fold.learned`).

    ``cell_limit``: clips an LSTM's cells after each step to plus and minus this value (Sak et al. 2014, arXiv
    1402.1128). During long silence some cells grow to values that never occurred in training, which changes the outputs
    after it. Beyond 10 a cell's output does not depend on its value anyway.
    """
    done = 0
    for node in list(model.graph):
        if node.op_type == "MatMul":
            done += _matmul(model, node, learned)
        elif node.op_type == "LSTM":
            done += _lstm(model, node, cell_limit)
    RemoveUnusedNodesPass()(model)
    return done


def _fixed(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The array of a constant, else ``None``."""
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _matmul(model: ir.Model, node: ir.Node, learned: set[str]) -> bool:
    """Quantise a MatMul with a trained weight; returns whether it was one."""
    weights = _fixed(node.inputs[1])
    name = node.inputs[1].name if node.inputs[1] is not None else None
    if weights is None or name not in learned or weights.ndim != 2 or weights.size < SMALLEST or node.inputs[0] is None:
        return False
    graft = _Graft(model, node, f"{name}.int8")
    node.outputs[0].replace_all_uses_with(
        graft.product(*graft.rows(node.inputs[0]), weights), replace_graph_outputs=True
    )
    return True


def _lstm(model: ir.Model, node: ir.Node, cell_limit: float | None) -> bool:
    """Quantise an LSTM of one direction, default activations and a fixed number of steps; returns whether it was one.

    The product with x is computed for all steps at once, the rest step by step. ONNX: X [T, B, K], W [1, 4H, K],
    R [1, 4H, H], B [1, 8H], gates in the order i, o, f, c.
    """
    x, w, recurrent = node.inputs[0], _fixed(node.inputs[1]), node.inputs[2]
    r = _fixed(recurrent)
    plain = set(node.attributes) <= {"hidden_size", "direction", "layout", "input_forget"}
    plain &= not node.attributes.get_int("layout", 0) and not node.attributes.get_int("input_forget", 0)
    if x is None or w is None or recurrent is None or r is None or not plain or len(w) != 1 or len(node.inputs) < 7:
        return False
    bias, h, c = _fixed(node.inputs[3]), node.inputs[5], node.inputs[6]
    if bias is None or h is None or c is None or node.inputs[4] is not None or node.outputs[0].shape is None:
        return False
    steps, size = node.outputs[0].shape[0], r.shape[2]
    if not isinstance(steps, int):
        return False
    name = str(recurrent.name)
    outside, inside = _Graft(model, node, f"{name}.int8.input"), _Graft(model, node, f"{name}.int8.step")
    summed = outside.constant("bias", bias[0, : 4 * size] + bias[0, 4 * size :])
    gates = outside.op("Add", outside.product(*outside.rows(x), w[0].T), summed)  # [T, B, 4H]
    each = (gates,) if steps == 1 else outside.ops("Split", gates, outputs=steps, axis=0, num_outputs=steps)
    h, c = outside.op("Squeeze", h, outside.axes(0)), outside.op("Squeeze", c, outside.axes(0))  # [B, H]
    split = inside.constant("gates", np.array([3 * size, size], np.int64))
    out = []
    for gate in each:
        recurrent = inside.product(inside.uint8(h, 1 / 127), None, r[0].T, 1 / 127)
        total = inside.op("Add", recurrent, outside.op("Squeeze", gate, outside.axes(0)))  # [B, 4H]
        open_, new = inside.ops("Split", total, split, outputs=2, axis=-1)
        i, o, f = inside.ops("Split", inside.op("Sigmoid", open_), outputs=3, axis=-1, num_outputs=3)
        c = inside.op("Add", inside.op("Mul", f, c), inside.op("Mul", i, inside.op("Tanh", new)))
        if cell_limit is not None:
            low, high = (inside.constant(f"/cell{x:g}", np.array(x, np.float32)) for x in (-cell_limit, cell_limit))
            c = inside.op("Clip", c, low, high)
        h = inside.op("Mul", o, inside.op("Tanh", c))
        out.append(inside.op("Unsqueeze", h, inside.axes(0)))
    sequence = inside.op("Concat", *out, axis=0) if len(out) > 1 else out[0]  # [T, B, H]
    ends = [inside.op("Unsqueeze", end, inside.axes(0)) for end in (h, c)]
    for old, value in zip(node.outputs, (inside.op("Unsqueeze", sequence, inside.axes(1)), *ends), strict=False):
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    return True
