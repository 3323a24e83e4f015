"""Tiny streaming models as real ONNX files, so that the tests of every room need no trained one.

:func:`toy_model` writes a transcriber of constant levels: loud and positive is "A", loud and negative is "B", quiet is
blank. Behind that stand an overlap of one hop (an int16 state) and an LSTM (two float32 states), so chunking, batching
and sleeping have something to break.
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

__all__ = ["level", "samples", "speech", "toy_model"]

PEAK = 20000


def toy_model(
    path: str | Path,
    *,
    name: str = "toy",
    sample_rate: int = 8000,
    hop: int = 80,
    steps: int = 4,
    hidden: int = 8,
    layers: int = 1,
    tokens: tuple[str, ...] = ("<blk>", "A", "B"),
    flush: int = 2,
    max_batch: int = 64,
    fails_on: int | None = None,
    classify: bool = False,
    options: dict[str, Any] | None = None,
    **manifest: Any,
) -> Path:
    """Write ``path`` (a file, or a folder for ``NAME.onnx`` in it) and return it.

    A chunk is ``steps * hop`` samples. With ``fails_on`` a run fails when any sample of its batch has that value:
    a failure inside the runtime, as a broken operator would give. ``classify``: the tokens are labels, the first one
    of nothing. ``options`` and ``manifest`` override the manifest.
    """
    path = Path(path)
    path = path / f"{name}.onnx" if path.is_dir() else path
    weights = _weights(hop, hidden, layers, len(tokens))
    states = [
        State.model_validate({"in": "overlap", "out": "overlap.next", "dtype": "int16", "shape": (hop,)}),
        *(
            State.model_validate({"in": n, "out": f"{n}.next", "dtype": "float32", "shape": (hidden,)})
            for i in range(layers)
            for n in (f"lstm.{i}.c", f"lstm.{i}.h")
        ),
    ]
    said = "scores" if classify else "log_probs"
    spelling = {"tokens": list(tokens), "blank": 0, "units": "characters"}
    running = {"mode": "running", "labels": list(tokens), "quiet": [tokens[0]]}
    fields: dict[str, Any] = {
        "schema": 1,
        "name": name,
        "version": "1",
        "task": "classify" if classify else "transcribe",
        "licence": "Apache-2.0",
        "input": Input(name="pcm", dtype="int16", chunk_shape=(steps * hop,), sample_rate=sample_rate),
        "states": tuple(states),
        "outputs": (Output(name=said, dtype="float32", shape=(steps, len(tokens))),),
        "latency": 0,
        "flush": flush,
        "max_batch": max_batch,
        "options": (running if classify else spelling) | (options or {}),
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": _golden(weights, hop, steps, hidden, layers, len(tokens), said),
    }
    document = Manifest.model_validate(fields | manifest)
    model = _graph(weights, hop, steps, hidden, layers, len(tokens), fails_on, said)
    helper.set_model_props(model, {KEY: document.to_json()})
    onnx.save(model, str(path))
    return path


def level(value: float, seconds: float, sample_rate: int = 8000) -> NDArray[np.int16]:
    """A constant level in [-1, 1]: 1 is read as "A", -1 as "B", 0 as silence."""
    return np.full(round(seconds * sample_rate), round(value * PEAK), np.int16)


def speech(text: str, sample_rate: int = 8000, seconds: float = 0.1) -> NDArray[np.int16]:
    """``"A B"`` as levels of ``seconds`` with as much silence behind each; the toy reads it back (space: silence)."""
    parts = [level({"A": 1.0, "B": -1.0}.get(c, 0.0), seconds, sample_rate) for c in text]
    quiet = level(0.0, seconds, sample_rate)
    return np.concatenate([x for part in parts for x in (part, quiet)]) if parts else quiet[:0]


def samples(seed: int, count: int) -> NDArray[np.int16]:
    """Noise whose level wanders, never at full scale: a text of As and Bs that no two seeds share."""
    rng = np.random.default_rng(seed)
    wander = np.repeat(rng.choice([-1.0, 0.0, 1.0], size=count // 400 + 1), 400)[:count]
    return (wander * 12000 + rng.normal(0, 3000, count)).clip(-30000, 30000).astype(np.int16)


# -- the graph --------------------------------------------------------------------------------------------------------


def _weights(hop: int, hidden: int, layers: int, tokens: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(7)
    basis = np.stack([np.full(2 * hop, 0.5 / hop), np.sin(np.arange(2 * hop) / 3) / hop], axis=1)
    head = np.zeros((2, tokens))
    for token in range(1, tokens):
        head[0, token] = (40.0 if token % 2 else -40.0) / (1 + (token - 1) // 2)
    bias = np.zeros(tokens)
    bias[0] = 6.0
    found = {"basis": basis, "head.level": head, "head.bias": bias, "head.h": rng.normal(0, 0.1, (hidden, tokens))}
    for i in range(layers):
        width = 2 if i == 0 else hidden
        scale = 1.0 / np.sqrt(hidden)
        found[f"lstm.{i}.w"] = rng.uniform(-scale, scale, (1, 4 * hidden, width))
        found[f"lstm.{i}.r"] = rng.uniform(-scale, scale, (1, 4 * hidden, hidden))
        found[f"lstm.{i}.b"] = rng.uniform(-scale, scale, (1, 8 * hidden))
    return {key: value.astype(np.float32) for key, value in found.items()}


def _graph(
    weights: dict[str, NDArray[np.float32]],
    hop: int,
    steps: int,
    hidden: int,
    layers: int,
    tokens: int,
    fails_on: int | None,
    said: str,
) -> onnx.ModelProto:
    constants: dict[str, NDArray[Any]] = {
        **weights,
        "scale": np.float32(1 / 32768),
        "zero": np.array([0]),
        "one": np.array([1]),
        "hops": np.array([0, steps, hop]),
        "end": np.array([2**31]),
        "last": np.array([-hop]),
        "first": np.array([steps * hop]),
    }
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        outputs = [output] if isinstance(output, str) else output
        nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs[0]

    # frames of two hops, [B, steps, 2 * hop]: the hop before (carried over from the last chunk) and this one
    add("Concat", ["overlap", "pcm"], "sound", axis=1)
    add("Slice", ["sound", "zero", "first", "one"], "before16")
    add("Slice", ["sound", "last", "end", "one"], "overlap.next")
    for raw, out in (("before16", "before"), ("pcm", "now")):
        add("Cast", [raw], f"{out}.f", to=TensorProto.FLOAT)
        add("Reshape", [f"{out}.f", "hops"], f"{out}.hops")
    add("Concat", ["before.hops", "now.hops"], "frames", axis=2)
    add("Mul", ["frames", "scale"], "scaled")
    features = add("MatMul", ["scaled", "basis"], "features")  # [B, steps, 2]
    x = add("Transpose", [features], "x", perm=[1, 0, 2])
    for i in range(layers):
        name = f"lstm.{i}"
        for part in "hc":
            add("Unsqueeze", [f"{name}.{part}", "zero"], f"{name}.{part}0")
        inputs = [x, f"{name}.w", f"{name}.r", f"{name}.b", "", f"{name}.h0", f"{name}.c0"]
        add("LSTM", inputs, [f"{name}.y", f"{name}.h1", f"{name}.c1"], hidden_size=hidden)
        for part in "hc":
            add("Squeeze", [f"{name}.{part}1", "zero"], f"{name}.{part}.next")
        x = add("Squeeze", [f"{name}.y", "one"], f"{name}.out")  # [steps, B, hidden]
    add("Transpose", [x], "deep", perm=[1, 0, 2])
    add("MatMul", ["deep", "head.h"], "deep.logits")
    add("MatMul", ["features", "head.level"], "level.logits")
    add("Add", ["deep.logits", "level.logits"], "sum")
    logits = add("Add", ["sum", "head.bias"], "logits")
    if fails_on is not None:
        constants |= {"trap": np.array(fails_on, np.int32), "only": np.zeros(1, np.float32)}
        add("Cast", ["pcm"], "pcm32", to=TensorProto.INT32)
        add("Equal", ["pcm32", "trap"], "hit")
        add("Cast", ["hit"], "index", to=TensorProto.INT64)
        add("Gather", ["only", "index"], "nothing")  # out of bounds at a hit: the runtime refuses
        add("ReduceMax", ["nothing"], "nothing.max", keepdims=0)
        logits = add("Add", ["logits", "nothing.max"], "safe")
    add("Softmax" if said == "scores" else "LogSoftmax", [logits], said, axis=-1)

    def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, ["batch", *shape])

    pairs = [(f"lstm.{i}.{part}", TensorProto.FLOAT, hidden) for i in range(layers) for part in "ch"]
    states = [("overlap", TensorProto.INT16, hop), *pairs]
    graph = helper.make_graph(
        nodes,
        "toy",
        [value("pcm", TensorProto.INT16, steps * hop), *(value(*state) for state in states)],
        [
            value(said, TensorProto.FLOAT, steps, tokens),
            *(value(f"{n}.next", kind, width) for n, kind, width in states),
        ],
        [numpy_helper.from_array(np.asarray(array), key) for key, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def _golden(
    weights: dict[str, NDArray[np.float32]], hop: int, steps: int, hidden: int, layers: int, tokens: int, said: str
) -> Golden:
    """Three chunks, recorded by the same weights in a graph that takes them as one."""
    chunks = 3
    whole = _graph(weights, hop, chunks * steps, hidden, layers, tokens, None, said)
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    pcm = samples(11, chunks * steps * hop)[None]
    feeds = {"pcm": pcm, "overlap": np.zeros((1, hop), np.int16)}
    feeds |= {f"lstm.{i}.{part}": np.zeros((1, hidden), np.float32) for i in range(layers) for part in "ch"}
    output = np.asarray(session.run([said], feeds)[0])
    return Golden(
        chunks=tuple(Tensor.of(c) for c in np.split(pcm, chunks, axis=1)),
        outputs={said: tuple(Tensor.of(o) for o in np.split(output, chunks, axis=1))},
    )
