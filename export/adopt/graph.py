"""Reduces a part's graph: constants in place of inputs, only the needed outputs, and constant folding."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

from export.adopt.free import Shapes, inferred
from export.adopt.plan import GraphPart
from export.adopt.report import AdoptionError

__all__ = ["constants", "folded", "raw"]

log = logging.getLogger(__name__)

_NO_LIMIT = 2**40


def constants(part: GraphPart) -> dict[str, NDArray[Any]]:
    """The constant inputs of every call at batch 1: [constants] and lengths, by name. Raises :class:`AdoptionError` for
    a value of another shape."""
    found = {}
    for name in (*part.roles.constants, *part.roles.lengths):
        port = part.port(name)
        value = part.roles.constants.get(name, part.stream.layout.shape[0])
        shape = tuple(size if isinstance(size, int) else 1 for size in port.dims)
        try:
            found[name] = np.array(np.broadcast_to(np.asarray(value, port.dtype), shape))
        except ValueError as error:
            raise AdoptionError(f"[constants] {name} = {value}: that does not fit {port}") from error
    return found


def raw(part: GraphPart, shapes: Shapes) -> ir.Model:
    """The part's graph with constants in place of inputs, reduced. ``shapes``: of the remaining inputs. A constant
    whose first axis is dynamic is repeated for every row."""
    model = _plain(part)
    if not folded(model, shapes):
        model = _plain(part)
        inferred(model, shapes)
        RemoveUnusedNodesPass()(model)
    return model


def folded(model: ir.Model, shapes: Shapes) -> bool:
    """In place: compute everything that follows from these shapes of the inputs. Returns ``False`` if that fails; the
    graph may then be broken."""
    inferred(model, shapes)
    try:
        # not the whole optimiser: its rewriting takes an addition of 1e-12 for one of zero
        fold_constants(model, onnx_shape_inference=True, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    except Exception:  # folding is optional: the runtime computes what is not folded
        log.debug("constants are not folded", exc_info=True)
        return False
    RemoveUnusedNodesPass()(model)
    return True


def _plain(part: GraphPart) -> ir.Model:
    """A copy of the part's graph with constants in place of inputs, and only the needed outputs."""
    model = part.foreign.model()
    inputs = {str(value.name): value for value in model.graph.inputs}
    rows = part.stream.layout.axis()
    for name, array in constants(part).items():
        each = array.ndim > 0 and (name in part.roles.lengths or not isinstance(part.port(name).dims[0], int))
        _fix(model, inputs[name], array, (inputs[part.stream.name], rows) if each and rows is not None else None)
    kept = {*part.roles.results, *(memory.out for memory in part.memories)}
    outputs = [value for value in model.graph.outputs if value.name in kept]
    model.graph.outputs.clear()
    model.graph.outputs.extend(outputs)
    return model


def _fix(model: ir.Model, value: ir.Value, array: NDArray[Any], rows: tuple[ir.Value, int] | None) -> None:
    """Replace the input ``value`` by a constant. ``rows``: the input and its axis whose size is the number of
    repetitions along the constant's first axis."""
    graph = model.graph

    def initial(name: str, data: Mapping[str, Any] | NDArray[Any]) -> ir.Value:
        array = np.asarray(data)
        tensor = ir.tensor(array, name=name)
        made = ir.Value(name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
        graph.initializers.add(made)
        return made

    graph.inputs.remove(value)
    name, value.name = str(value.name), f"{value.name}.was"
    new = initial(name, array)
    if rows is not None:
        shape = ir.node("Shape", [rows[0]])
        count = ir.node("Gather", [shape.outputs[0], initial(f"{name}.axis", np.array([rows[1]], np.int64))])
        rest = initial(f"{name}.rest", np.array(array.shape[1:], np.int64))
        whole = ir.node("Concat", [count.outputs[0], rest], attributes={"axis": 0})
        wide = ir.node("Expand", [new, whole.outputs[0]])
        graph.insert_before(graph.node(0), [shape, count, whole, wide])
        new = wide.outputs[0]
    value.replace_all_uses_with(new, replace_graph_outputs=True)
