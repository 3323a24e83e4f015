"""A tiny stateful model of rows as a real ONNX file, with every kind of tensor that a model of rows may have.

:func:`row_model` writes a leaky recurrence ``h = tanh(x W + y V + c + h R)``: inputs ``x`` float32 [T, 3] and, if asked
for, ``y`` int16 [T], a condition ``c`` float32 [4]; outputs ``z`` float32 [T, 2], ``loud`` bool [T] and ``count`` int64
[T / 2 or 1], of which an even chunk has one for two rows. A run fails on an ``x`` of ``fails_on``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor

__all__ = ["row_model", "some_rows"]

WIDTH, HIDDEN, GIVEN = 3, 4, 2


def row_model(
    path: Path,
    *,
    name: str = "plant",
    chunk: int = 1,
    several: bool = False,
    condition: bool = False,
    fails_on: float | None = None,
    **manifest: Any,
) -> Path:
    """Write ``path`` (a file, or a folder for ``NAME.onnx`` in it) and return it."""
    path = path / f"{name}.onnx" if path.is_dir() else path
    every = 2 if chunk % 2 == 0 else 1
    graph = _graph(chunk, every, several, condition, fails_on)
    state = [("h", "float32", (HIDDEN,)), ("rows", "int64", (1,))]
    feeds: dict[str, NDArray[Any]] = {"x": some_rows(5, chunk, several=False)["x"][None]}
    feeds |= {n: np.zeros((1, *shape), kind) for n, kind, shape in state}
    more: dict[str, Any] = {}
    golden: dict[str, Any] = {}
    if several:
        feeds["y"] = np.arange(chunk, dtype=np.int16)[None]
        more["more_inputs"] = [{"name": "y", "dtype": "int16", "chunk_shape": (chunk,)}]
        golden["more_inputs"] = {"y": (Tensor.of(feeds["y"]),)}
    if condition:
        feeds["c"] = np.full((1, HIDDEN), 0.5, np.float32)
        more["conditions"] = [{"name": "c", "dtype": "float32", "shape": (HIDDEN,)}]
        golden["conditions"] = {"c": Tensor.of(feeds["c"])}
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    names = ["z", "loud", "count"]
    found = dict(zip(names, session.run(names, feeds), strict=True))
    fields: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "version": "1",
        "task": "raw",
        "licence": "Apache-2.0",
        "input": Input(name="x", dtype="float32", chunk_shape=(chunk, WIDTH), step_seconds=0),
        "states": [
            State.model_validate({"in": name_, "out": f"{name_}.next", "dtype": kind, "shape": shape})
            for name_, kind, shape in state
        ],
        "outputs": [
            Output(name="z", dtype="float32", shape=(chunk, GIVEN)),
            Output(name="loud", dtype="bool", shape=(chunk,)),
            Output(name="count", dtype="int64", shape=(chunk // every,)),
        ],
        "latency": 0,
        "flush": 0,
        "max_batch": 16,
        "options": {},
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden.model_validate(
            {"chunks": (Tensor.of(feeds["x"]),), "outputs": {n: (Tensor.of(found[n]),) for n in names}, **golden}
        ),
        **more,
    }
    fields["states"], fields["outputs"] = tuple(fields["states"]), tuple(fields["outputs"])
    for part in ("more_inputs", "conditions"):
        if part in fields:
            fields[part] = tuple(fields[part])
    document = Manifest.model_validate(fields | manifest)
    helper.set_model_props(graph, {KEY: document.to_json()})
    onnx.save(graph, str(path))
    return path


def some_rows(seed: int, count: int, *, several: bool = False) -> NDArray[Any]:
    """``count`` rows in the model's ``row_dtype``."""
    rng = np.random.default_rng(seed)
    fields: list[Any] = [("x", "<f4", (WIDTH,))]
    rows = np.empty(count, np.dtype([*fields, ("y", "<i2")] if several else fields))
    rows["x"] = rng.normal(size=(count, WIDTH))
    if several:
        rows["y"] = rng.integers(-100, 100, count)
    return rows


def _graph(chunk: int, every: int, several: bool, condition: bool, fails_on: float | None) -> onnx.ModelProto:
    """Unrolled over the rows of a chunk."""
    rng = np.random.default_rng(3)
    constants: dict[str, NDArray[Any]] = {
        "W": rng.normal(0, 0.7, (WIDTH, HIDDEN)).astype(np.float32),
        "R": rng.normal(0, 0.5, (HIDDEN, HIDDEN)).astype(np.float32),
        "O": rng.normal(0, 1.0, (HIDDEN, GIVEN)).astype(np.float32),
        "threshold": np.float32(0.5),
        "one": np.array([[1]], np.int64),
        "axis": np.array([1], np.int64),
    }
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    if several:
        constants["V"] = rng.normal(0, 0.01, (1, HIDDEN)).astype(np.float32)
        add("Cast", ["y"], "y.float", to=TensorProto.FLOAT)
    if fails_on is not None:
        constants |= {"trap": np.float32(fails_on), "only": np.zeros(1, np.float32)}
        add("Equal", ["x", "trap"], "hit")
        add("Cast", ["hit"], "index", to=TensorProto.INT64)
        add("Gather", ["only", "index"], "nothing")  # out of bounds at a hit: the runtime refuses
        add("ReduceMax", ["nothing"], "nothing.max", keepdims=0)
    h, counted = "h", "rows"
    rows: list[str] = []
    counts: list[str] = []
    for t in range(chunk):
        constants[f"at.{t}"] = np.array(t, np.int64)
        parts = [add("MatMul", [add("Gather", ["x", f"at.{t}"], f"x.{t}", axis=1), "W"], f"w.{t}")]
        parts.append(add("MatMul", [h, "R"], f"r.{t}"))
        if several:
            row = add("Unsqueeze", [add("Gather", ["y.float", f"at.{t}"], f"y.{t}", axis=1), "axis"], f"y2.{t}")
            parts.append(add("MatMul", [row, "V"], f"v.{t}"))
        if condition:
            parts.append("c")
        if fails_on is not None:
            parts.append("nothing.max")
        h = add("Tanh", [add("Sum", parts, f"sum.{t}")], "h.next" if t == chunk - 1 else f"h.{t}")
        rows.append(add("Unsqueeze", [h, "axis"], f"deep.{t}"))
        counted = add("Add", [counted, "one"], "rows.next" if t == chunk - 1 else f"rows.{t}")
        if t % every == every - 1:
            counts.append(counted)
    add("Concat", rows, "deep", axis=1)  # [B, T, HIDDEN]
    add("MatMul", ["deep", "O"], "z")
    add("ReduceMax", ["z"], "peak", axes=[2], keepdims=0)
    add("Greater", ["peak", "threshold"], "loud")
    add("Concat", counts, "count", axis=1)

    def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    inputs = [value("x", TensorProto.FLOAT, chunk, WIDTH)]
    inputs += [value("y", TensorProto.INT16, chunk)] if several else []
    inputs += [value("c", TensorProto.FLOAT, HIDDEN)] if condition else []
    graph = helper.make_graph(
        nodes,
        "rows",
        [*inputs, value("h", TensorProto.FLOAT, HIDDEN), value("rows", TensorProto.INT64, 1)],
        [
            value("z", TensorProto.FLOAT, chunk, GIVEN),
            value("loud", TensorProto.BOOL, chunk),
            value("count", TensorProto.INT64, chunk // every),
            value("h.next", TensorProto.FLOAT, HIDDEN),
            value("rows.next", TensorProto.INT64, 1),
        ],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model
