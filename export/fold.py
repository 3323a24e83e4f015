"""Folds constants that the exporter leaves to be computed at run time, and removes traces of the exporting machine.

The dynamo exporter writes an LSTM's weights in PyTorch's gate order and re-orders them with Slice and Concat nodes.
After folding, every weight is stored once, in ONNX's order; only then a graph with LSTMs can be quantised.
"""

from __future__ import annotations

import onnx_ir as ir
import onnxscript.optimizer
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

__all__ = ["fold", "learned", "name_batch_axis", "squeeze_directions", "strip"]

#: Size limit of folded tensors, above any weight: the defaults (1 KiB in, 1 MiB out) exclude the weights of an LSTM.
_NO_LIMIT = 2**40


def learned(model: ir.Model, parameters: set[str]) -> set[str]:
    """Names of values that are computed from trained parameters and constants alone.

    ``parameters``: names of the module's parameters. The matrices of a front end (a mel filter bank) are buffers, not
    parameters, and must not be quantised. Call this before :func:`fold`, which loses the origin of values.
    """
    found = {name for name in model.graph.initializers if name.removeprefix("module.") in parameters}
    fixed = {name for name in model.graph.initializers if name not in found}
    for node in model.graph:
        names = {value.name for value in node.inputs if value is not None}
        if names <= found | fixed and all(output.name for output in node.outputs):
            target = found if names & found else fixed
            target.update(str(output.name) for output in node.outputs)
    return found


def fold(model: ir.Model) -> None:
    """In place: fold constants of any size, drop unused nodes and initialisers, squeeze LSTM outputs."""
    onnxscript.optimizer.optimize(model, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    squeeze_directions(model)
    RemoveUnusedNodesPass()(model)


def squeeze_directions(model: ir.Model) -> None:
    """In place: remove the axis of directions after unidirectional recurrent nodes by one ``Squeeze``.

    It replaces ``Y [T, 1, B, H] -> Transpose [T, B, 1, H] -> Reshape [T, B, H]``, for which the exporter computes the
    shape in nine nodes.
    """
    for node in list(model.graph):
        if (
            node.op_type not in ("LSTM", "GRU", "RNN")
            or node.attributes.get_string("direction", "forward") != "forward"
        ):
            continue
        whole, x = node.outputs[0].shape, node.inputs[0]  # [T, 1, B, H]
        if whole is not None and x is not None and x.shape is not None:
            # after a layer whose shape is computed, the exporter does not know the number of steps
            whole = node.outputs[0].shape = ir.Shape([x.shape[0], *whole[1:]])
        for use in list(node.outputs[0].uses()):
            turn = use.node
            if turn.op_type != "Transpose" or list(turn.attributes.get_ints("perm", ())) != [0, 2, 1, 3]:
                continue
            reshapes = [other.node for other in turn.outputs[0].uses() if other.node.op_type == "Reshape"]
            for reshape in reshapes:
                if whole is None or reshape.outputs[0].shape is None or len(reshape.outputs[0].shape) != 3:
                    continue
                axes = ir.tensor([1], dtype=ir.DataType.INT64, name=f"{node.name}.directions")
                constant = ir.Value(name=f"{node.name}.directions", const_value=axes)
                model.graph.initializers.setdefault(str(constant.name), constant)
                squeeze = ir.node("Squeeze", [node.outputs[0], model.graph.initializers[str(constant.name)]])
                squeeze.outputs[0].name = f"{node.name}.sequence"
                squeeze.outputs[0].type = node.outputs[0].type
                squeeze.outputs[0].shape = ir.Shape([whole[0], *whole[2:]])
                model.graph.insert_before(reshape, squeeze)
                reshape.outputs[0].replace_all_uses_with(squeeze.outputs[0])


def name_batch_axis(model: ir.Model) -> None:
    """In place: name axis 0 of all inputs and outputs ``batch``; the exporter uses several names (``s12``, ``s3``)."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.shape is not None
        value.shape = ir.Shape(["batch", *value.shape[1:]])


def strip(model: ir.Model) -> None:
    """In place: remove stack traces, module paths and comments, which describe the exporting machine."""
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.doc_string = None
    model.graph.metadata_props.clear()
    values = [*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        values += node.outputs
    for value in values:
        value.metadata_props.clear()
        value.doc_string = None
        if value.const_value is not None:
            value.const_value.doc_string = None
    NameFixPass()(model)
