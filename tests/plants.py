"""A tiny forecaster of rows as a real ONNX file: each target stays as it is, plus a little for each row that was run.

So a state that is lost, mixed up or advanced twice shows in every forecast, and what should come is easily said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor

__all__ = ["LEVELS", "toy_plant"]

LEVELS = (0.1, 0.5, 0.9)
#: What one row more adds to a forecast, for each step ahead.
GROWTH = 0.01


def toy_plant(
    folder: Path,
    *,
    name: str = "plant",
    variables: tuple[str, ...] = ("inflow", "outflow", "level"),
    targets: tuple[str, ...] = ("level", "outflow"),
    horizon: int = 4,
    step: float = 3600.0,
) -> Path:
    """``NAME.onnx`` in ``folder``. The median of a target ``h`` steps ahead is its last value (0 before the first) plus
    ``0.01 * h * rows``; the outer quantiles are 1 below and above."""
    count, width = len(variables), 2 * len(variables) + 2
    chosen = np.array([variables.index(target) for target in targets])
    constants = {
        "zero": np.array([0]),
        "count": np.array([count]),
        "twice": np.array([2 * count]),
        "axis": np.array([2]),
        "one": np.array(1.0, np.float32),
        "half": np.array(0.5, np.float32),
        "chosen": chosen,
        "growth": (GROWTH * np.arange(1, horizon + 1, dtype=np.float32)).reshape(1, 1, 1, horizon),
        "spread": np.array([-1.0, 0.0, 1.0], np.float32).reshape(1, 1, 1, 1, 3),
        "last_axis": np.array([3]),
        "quantile_axis": np.array([4]),
        "rows_axes": np.array([2, 3]),
    }
    nodes = [
        helper.make_node("Slice", ["rows", "zero", "count", "axis"], ["values"]),
        helper.make_node("Slice", ["rows", "count", "twice", "axis"], ["there"]),
        helper.make_node("Greater", ["there", "half"], ["known"]),
        helper.make_node("Where", ["known", "values", "last"], ["last.next"]),
        helper.make_node("Add", ["seen", "one"], ["seen.next"]),
        helper.make_node("Gather", ["last.next", "chosen"], ["now"], axis=2),  # [B, 1, K]
        helper.make_node("Unsqueeze", ["now", "last_axis"], ["now.h"]),
        helper.make_node("Unsqueeze", ["seen.next", "rows_axes"], ["seen.h"]),  # [B, 1, 1, 1]
        helper.make_node("Mul", ["seen.h", "growth"], ["grown"]),
        helper.make_node("Add", ["now.h", "grown"], ["mean"]),  # [B, 1, K, H]
        helper.make_node("Unsqueeze", ["mean", "quantile_axis"], ["mean.q"]),
        helper.make_node("Add", ["mean.q", "spread"], ["quantiles"]),
    ]

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    shapes = {"mean": (1, len(targets), horizon), "quantiles": (1, len(targets), horizon, 3)}
    states = {"last": (1, count), "seen": (1,)}
    graph = helper.make_graph(
        nodes,
        name,
        [value("rows", 1, width), *(value(state, *shape) for state, shape in states.items())],
        [
            *(value(output, *shape) for output, shape in shapes.items()),
            *(value(f"{state}.next", *shape) for state, shape in states.items()),
        ],
        [numpy_helper.from_array(array, key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    golden = _golden(model, width, states, list(shapes))
    document = Manifest.model_validate(
        {
            "schema": 1,
            "name": name,
            "version": "1",
            "task": "forecast",
            "licence": "Apache-2.0",
            "input": Input(name="rows", dtype="float32", chunk_shape=(1, width), step_seconds=step),
            "states": tuple(
                State.model_validate({"in": s, "out": f"{s}.next", "dtype": "float32", "shape": shape})
                for s, shape in states.items()
            ),
            "outputs": tuple(Output(name=o, dtype="float32", shape=shape) for o, shape in shapes.items()),
            "latency": 0,
            "flush": 0,
            "max_batch": 64,
            "options": {
                "quantiles": list(LEVELS),
                "horizon": horizon,
                "variables": list(variables),
                "targets": list(targets),
            },
            "provenance": Provenance(data="none", revision="none", tolerance=0.0),
            "golden": golden,
        }
    )
    helper.set_model_props(model, {KEY: document.to_json()})
    path = folder / f"{name}.onnx"
    onnx.save(model, str(path))
    return path


def _golden(model: onnx.ModelProto, width: int, states: dict[str, tuple[int, ...]], outputs: list[str]) -> Golden:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    memory = {name: np.zeros((1, *shape), np.float32) for name, shape in states.items()}
    chunks, found = [], {name: list[Tensor]() for name in outputs}
    for _ in range(3):
        rows = rng.random((1, 1, width), np.float32)
        rows[..., width // 2 - 1 : -2] = 1.0
        chunks.append(Tensor.of(rows))
        said = session.run([*outputs, *(f"{name}.next" for name in states)], {"rows": rows, **memory})
        for name, array in zip(outputs, said, strict=False):
            found[name].append(Tensor.of(np.asarray(array)))
        memory = {name: np.asarray(array) for name, array in zip(states, said[len(outputs) :], strict=True)}
    return Golden(chunks=tuple(chunks), outputs={name: tuple(tensors) for name, tensors in found.items()})
