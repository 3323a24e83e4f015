"""A model that turns sound upside down, some samples late, so that tests know each sample that must come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor

__all__ = ["CHUNK", "DELAY", "enhancer_manifest", "toy_enhancer"]

CHUNK, DELAY = 64, 24


def enhancer_manifest(sample_rate: int = 8000, **changes: Any) -> Manifest:
    pcm = np.arange(3 * CHUNK, dtype=np.int16)[None] * 100 + 7
    late = np.concatenate([np.zeros((1, DELAY), np.int16), pcm], axis=1)[:, : pcm.shape[1]]
    wanted = (late / np.float32(-32768)).astype(np.float32)
    fields: dict[str, Any] = {
        "schema": 1, "name": "upside-down", "version": "1", "task": "enhance", "licence": "Apache-2.0",
        "input": Input(name="pcm", dtype="int16", chunk_shape=(CHUNK,), sample_rate=sample_rate),
        "states": (State.model_validate({"in": "past", "out": "past.next", "dtype": "int16", "shape": (DELAY,)}),),
        "outputs": (Output(name="audio", dtype="float32", shape=(CHUNK // 8, 8)),),
        "latency": DELAY // 8, "flush": DELAY // 8, "max_batch": 64, "options": {},
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(
            chunks=tuple(Tensor.of(part) for part in np.split(pcm, 3, axis=1)),
            outputs={"audio": tuple(Tensor.of(p.reshape(1, -1, 8)) for p in np.split(wanted, 3, axis=1))},
        ),
    }  # fmt: skip
    return Manifest.model_validate(fields | changes)


def toy_enhancer(path: Path, sample_rate: int = 8000, **changes: Any) -> Path:
    """``NAME.onnx`` in a folder, or a file. Steps of 8 samples."""
    document = enhancer_manifest(sample_rate, **changes)
    path = path / f"{document.name}.onnx" if path.is_dir() else path
    constants = {
        "zero": np.array([0]), "one": np.array([1]), "chunk": np.array([CHUNK]), "end": np.array([2**31]),
        "scale": np.float32(-1 / 32768), "blocks": np.array([0, CHUNK // 8, 8]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Concat", ["past", "pcm"], ["whole"], axis=1),
        helper.make_node("Slice", ["whole", "zero", "chunk", "one"], ["late"]),
        helper.make_node("Slice", ["whole", "chunk", "end", "one"], ["past.next"]),
        helper.make_node("Cast", ["late"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["turned"]),
        helper.make_node("Reshape", ["turned", "blocks"], ["audio"]),
    ]

    def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    graph = helper.make_graph(
        nodes,
        "upside-down",
        [value("pcm", TensorProto.INT16, CHUNK), value("past", TensorProto.INT16, DELAY)],
        [value("audio", TensorProto.FLOAT, CHUNK // 8, 8), value("past.next", TensorProto.INT16, DELAY)],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    helper.set_model_props(model, {KEY: document.to_json()})
    onnx.save(model, str(path))
    return path
