"""A file with two stream inputs and two conditions, and what can be wrong with such a file.

``x`` [1, 2] is weighed by ``gate`` [1], both rows of the same step; ``speaker`` [3] and the integer ``language`` [1]
are set once. The only state is a leaking average, so that a condition that is lost, or is another stream's, shows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import (
    KEY,
    Condition,
    Golden,
    Input,
    Manifest,
    Output,
    Provenance,
    State,
    StreamInput,
    Tensor,
)

__all__ = ["reference", "several", "signal"]

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WEIGHTS = np.array([[0.5, -1.0, 0.25], [1.0, 0.5, -0.75]], np.float32)


def reference(
    x: NDArray[Any], gate: NDArray[Any], speaker: NDArray[Any], language: int, average: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """In NumPy: ``x`` [N, 2], ``gate`` [N] to ``y`` [N, 3]."""
    average = np.zeros(3) if average is None else average
    found = []
    for row, open_ in zip(x.astype(np.float64), gate.astype(np.float64), strict=True):
        average = 0.9 * average + 0.1 * (row @ WEIGHTS) / (1 + np.exp(-open_)) + 0.1 * speaker + 0.01 * language
        found.append(np.tanh(average))
    return np.array(found, np.float32)


def signal(seed: int, rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]:
    rng = np.random.default_rng(seed)
    x, gate = rng.normal(size=(rows, 2)).astype(np.float32), rng.normal(size=rows).astype(np.float32)
    return x, gate, rng.normal(size=3).astype(np.float32), int(rng.integers(1, 4))


def several(path: Path, *, row_zero: bool = False, max_batch: int = 8, **manifest: Any) -> Path:
    """``row_zero``: everybody has the speaker of row 0, as a graph that was traced with a batch of one may."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "weights"], ["projected"]),  # [B, 1, 3]
        node("Sigmoid", ["gate"], ["opened"]),
        node("Unsqueeze", ["opened", "two"], ["open"]),
        node("Mul", ["projected", "open"], ["gated"]),
        node("Squeeze", ["gated", "one"], ["row"]),
        node("Mul", ["row", "tenth"], ["news"]),
        node("Gather", ["speaker", "nought"], ["who"], axis=0) if row_zero else node("Identity", ["speaker"], ["who"]),
        node("Mul", ["who", "tenth"], ["voice"]),
        node("Cast", ["language"], ["spoken"], to=FLOAT),
        node("Mul", ["spoken", "hundredth"], ["accent"]),
        node("Mul", ["average", "keep"], ["kept"]),
        node("Add", ["kept", "news"], ["heard"]),
        node("Add", ["heard", "voice"], ["voiced"]),
        node("Add", ["voiced", "accent"], ["average.next"]),
        node("Tanh", ["average.next"], ["bounded"]),
        node("Unsqueeze", ["bounded", "one"], ["y"]),
    ]
    constants = {
        "weights": WEIGHTS,
        "tenth": np.array(0.1, np.float32),
        "hundredth": np.array(0.01, np.float32),
        "keep": np.array(0.9, np.float32),
        "one": np.array([1]),
        "two": np.array([2]),
        "nought": np.array([0]),
    }
    shapes = {
        "x": (FLOAT, [1, 2]),
        "gate": (FLOAT, [1]),
        "speaker": (FLOAT, [3]),
        "language": (INT64, [1]),
        "average": (FLOAT, [3]),
        "y": (FLOAT, [1, 3]),
        "average.next": (FLOAT, [3]),
    }

    def value(name: str) -> onnx.ValueInfoProto:
        kind, shape = shapes[name]
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    graph = helper.make_graph(
        nodes,
        "several",
        [value(name) for name in ("gate", "average", "language", "x", "speaker")],
        [value(name) for name in ("average.next", "y")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    x, gate, speaker, language = signal(3, 6)
    fields: dict[str, Any] = {
        "schema": 1,
        "name": "several",
        "version": "1",
        "task": "raw",
        "licence": "Apache-2.0",
        "input": Input(name="x", dtype="float32", chunk_shape=(1, 2), step_seconds=0.0),
        "more_inputs": (StreamInput(name="gate", dtype="float32", chunk_shape=(1,)),),
        "conditions": (
            Condition(name="speaker", dtype="float32", shape=(3,)),
            Condition(name="language", dtype="int64", shape=(1,), limits=(0, 3)),
        ),
        "states": (State.model_validate({"in": "average", "out": "average.next", "dtype": "float32", "shape": (3,)}),),
        "outputs": (Output(name="y", dtype="float32", shape=(1, 3)),),
        "latency": 0,
        "flush": 0,
        "max_batch": max_batch,
        "options": {},
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(
            chunks=tuple(Tensor.of(row[None, None]) for row in x),
            more_inputs={"gate": tuple(Tensor.of(row.reshape(1, 1)) for row in gate)},
            conditions={"speaker": Tensor.of(speaker[None]), "language": Tensor.of(np.array([[language]]))},
            outputs={"y": tuple(Tensor.of(row[None, None]) for row in reference(x, gate, speaker, language))},
        ),
    }
    document = Manifest.model_validate(fields | manifest)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: document.to_json()})
    path = path / "several.onnx" if path.is_dir() else path
    onnx.save(model, str(path))
    return path
