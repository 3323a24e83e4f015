"""A small model of rows: three sensors, chunks of two rows, and a sum of everything so far in which the old fades."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor

__all__ = ["TRAP", "plant", "rows", "truth"]

CHUNK, WIDTH = 2, 3
#: A value on which a run of the model fails, as a broken operator would.
TRAP = 666.0


def rows(seed: int, count: int) -> NDArray[np.float32]:
    """[count, 3]."""
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)


def truth(given: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the output ``y`` is, in the graph's own arithmetic: ``y[t] = y[t - 1] / 2 + x[t]``."""
    found, last = np.empty_like(given), np.zeros(WIDTH, np.float32)
    for at, row in enumerate(given):
        found[at] = last = np.float32(0.5) * last + row
    return found


def plant(path: Path, name: str = "plant") -> Path:
    """``x`` [2, 3] in; ``y`` [2, 3] the fading sums, ``low`` [2] whether their mean is negative."""
    constants = {
        "half": np.array(0.5, np.float32),
        "one": np.array([1]),
        "trap": np.array(TRAP, np.float32),
        "only": np.zeros(1, np.float32),
        "zero": np.array(0, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Equal", ["x", "trap"], ["hit"]),
        node("Cast", ["hit"], ["index"], to=TensorProto.INT64),
        node("Gather", ["only", "index"], ["nothing"]),  # out of bounds at a hit: the runtime refuses
        node("Add", ["x", "nothing"], ["safe"]),
        node("Split", ["safe"], ["first", "second"], axis=1),  # [B, 1, 3] each
        node("Unsqueeze", ["total", "one"], ["before"]),
        node("Mul", ["before", "half"], ["faded"]),
        node("Add", ["faded", "first"], ["y.0"]),
        node("Mul", ["y.0", "half"], ["faded.0"]),
        node("Add", ["faded.0", "second"], ["y.1"]),
        node("Concat", ["y.0", "y.1"], ["y"], axis=1),
        node("Squeeze", ["y.1", "one"], ["total.next"]),
        node("ReduceMean", ["y"], ["mean"], axes=[2], keepdims=0),
        node("Less", ["mean", "zero"], ["low"]),
    ]

    def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    graph = helper.make_graph(
        nodes,
        name,
        [value("x", TensorProto.FLOAT, CHUNK, WIDTH), value("total", TensorProto.FLOAT, WIDTH)],
        [
            value("y", TensorProto.FLOAT, CHUNK, WIDTH),
            value("low", TensorProto.BOOL, CHUNK),
            value("total.next", TensorProto.FLOAT, WIDTH),
        ],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    given = rows(1, 3 * CHUNK)
    expected = truth(given)
    chunks, y = (np.split(array[None], 3, axis=1) for array in (given, expected))
    low = np.split((expected.mean(axis=1) < 0)[None], 3, axis=1)
    fields: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "version": "1",
        "task": "raw",
        "licence": "Apache-2.0",
        "input": Input(name="x", dtype="float32", chunk_shape=(CHUNK, WIDTH), step_seconds=0.0),
        "states": (State.model_validate({"in": "total", "out": "total.next", "dtype": "float32", "shape": (WIDTH,)}),),
        "outputs": (
            Output(name="y", dtype="float32", shape=(CHUNK, WIDTH)),
            Output(name="low", dtype="bool", shape=(CHUNK,)),
        ),
        "latency": 0,
        "flush": 0,
        "max_batch": 64,
        "options": {},
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(
            chunks=tuple(map(Tensor.of, chunks)),
            outputs={"y": tuple(map(Tensor.of, y)), "low": tuple(map(Tensor.of, low))},
        ),
    }
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {KEY: Manifest.model_validate(fields).to_json()})
    onnx.checker.check_model(model, full_check=True)
    path = path / f"{name}.onnx" if path.is_dir() else path
    onnx.save(model, str(path))
    return path
