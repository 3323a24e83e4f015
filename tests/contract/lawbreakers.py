"""Files that break one law each: a counting model in plain ONNX operators, and what can be wrong with such a model.

The honest one keeps three states: leaking averages of level and energy, and a count that saturates. Its outputs are the
two averages at every step, so that it can be wrong in every way in which a recurrent network can.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from streamer.contract.manifest import KEY, Golden, Input, Manifest, Output, Provenance, State, Tensor

__all__ = ["BREAKERS", "CHUNK", "honest", "write"]

CHUNK, STEPS, HOP = 40, 4, 10
STEP = range(STEPS)
FLOAT, INT16, INT64 = TensorProto.FLOAT, TensorProto.INT16, TensorProto.INT64
STATES = ("energy", "average", "count")

Change = Callable[[dict[str, Any]], None]


def _parts() -> dict[str, Any]:
    """Nodes, initialisers and interface of the honest model, to be changed before it is written."""
    node = helper.make_node
    constants = {
        "scale": np.array(1 / 32768, np.float32),
        "frames": np.array([0, STEPS, HOP], np.int64),
        "two": np.array([2], np.int64),
        "one": np.array([1], np.int64),
        "last": np.array([STEPS - 1], np.int64),
        "leak": np.array([[0.9**s for s in range(1, STEPS + 1)]], np.float32),
        "decay": np.array([[0.1 * 0.9 ** (t - s) * (s <= t) for t in STEP] for s in STEP], np.float32),
        "steps": np.array(STEPS, np.float32),
        "ceiling": np.array(1000.0, np.float32),
    }
    nodes = [
        node("Cast", ["pcm"], ["float"], to=FLOAT),
        node("Mul", ["float", "scale"], ["x"]),
        node("Reshape", ["x", "frames"], ["framed"]),  # [B, T, hop]
        node("ReduceSum", ["framed", "two"], ["level"], keepdims=0),  # [B, T]
        node("Mul", ["level", "level"], ["power"]),
        node("MatMul", ["level", "decay"], ["recent"]),
        node("Mul", ["average", "leak"], ["remembered"]),
        node("Add", ["recent", "remembered"], ["averages"]),
        node("Gather", ["averages", "last"], ["average.next"], axis=1),
        node("MatMul", ["power", "decay"], ["news"]),
        node("Mul", ["energy", "leak"], ["olds"]),
        node("Add", ["news", "olds"], ["energies"]),
        node("Gather", ["energies", "last"], ["energy.next"], axis=1),
        node("Add", ["count", "steps"], ["counted"]),
        node("Min", ["counted", "ceiling"], ["count.next"]),
        node("Unsqueeze", ["averages", "two"], ["averages.column"]),
        node("Unsqueeze", ["energies", "two"], ["energies.column"]),
        node("Concat", ["averages.column", "energies.column"], ["y"], axis=2),
        node("Identity", ["y"], ["out"]),
    ]
    return {
        "nodes": nodes,
        "constants": constants,
        "inputs": ["pcm", *STATES],
        "outputs": ["out", *(f"{name}.next" for name in STATES)],
        "batch": "batch",
        "pairs": {name: f"{name}.next" for name in STATES},
        "golden": {},
        "manifest": {},
    }


def _reference(signal: NDArray[np.int16]) -> NDArray[np.float32]:
    """What the honest model gives, in NumPy: the whole signal [N] -> [N / hop, 2]."""
    level = (signal.astype(np.float64) / 32768).reshape(-1, HOP).sum(1)
    out, average, energy = [], 0.0, 0.0
    for value in level:
        average, energy = 0.9 * average + 0.1 * value, 0.9 * energy + 0.1 * value * value
        out.append((average, energy))
    return np.array(out, np.float32)


def write(path: Path, change: Change = lambda parts: None) -> Path:
    """The honest model with ``change`` applied to its parts."""
    parts = _parts()
    change(parts)
    shapes = {"pcm": (INT16, [CHUNK]), "out": (FLOAT, [STEPS, 2])}

    def value(name: str) -> onnx.ValueInfoProto:
        kind, shape = shapes.get(name, (FLOAT, [1]))
        return helper.make_tensor_value_info(name, kind, [parts["batch"], *shape])

    graph = helper.make_graph(
        parts["nodes"],
        "counting",
        [value(name) for name in parts["inputs"]],
        [value(name) for name in parts["outputs"]],
        [numpy_helper.from_array(array, name) for name, array in parts["constants"].items()],
    )
    rng = np.random.default_rng(3)
    chunks = rng.integers(-9000, 9000, (3, 1, CHUNK)).astype(np.int16)
    outputs = _reference(chunks.reshape(-1)).reshape(3, 1, STEPS, 2)
    golden = {"chunks": chunks, "outputs": outputs} | parts["golden"]
    fields: dict[str, Any] = {
        "schema": 1,
        "name": "counting",
        "version": "1",
        "task": "transcribe",
        "licence": "Apache-2.0",
        "input": Input(name="pcm", dtype="int16", chunk_shape=(CHUNK,), sample_rate=8000),
        "states": tuple(
            State.model_validate({"in": name, "out": out, "dtype": "float32", "shape": (1,)})
            for name, out in parts["pairs"].items()
        ),
        "outputs": (Output(name="out", dtype="float32", shape=(STEPS, 2)),),
        "latency": 0,
        "flush": 1,
        "max_batch": 8,
        "options": {"tokens": ["<blank>", "A"], "blank": 0, "units": "characters"},
        "provenance": Provenance(data="none", revision="none", tolerance=0.0),
        "golden": Golden(
            chunks=tuple(Tensor.of(chunk) for chunk in golden["chunks"]),
            outputs={"out": tuple(Tensor.of(part) for part in golden["outputs"])},
        ),
    }
    manifest = Manifest.model_validate(fields | parts["manifest"])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {KEY: manifest.to_json()})
    onnx.save(model, str(path))
    return path


def honest(path: Path) -> Path:
    return write(path)


def _replace(parts: dict[str, Any], output: str, *nodes: onnx.NodeProto) -> None:
    """The node that makes ``output`` gives way to ``nodes``."""
    at = next(i for i, node in enumerate(parts["nodes"]) if output in node.output)
    parts["nodes"][at : at + 1] = nodes


def _batch_mean(parts: dict[str, Any]) -> None:
    """Normalises over the batch, as a forgotten training mode would."""
    _replace(
        parts,
        "out",
        helper.make_node("ReduceMean", ["y", "batch.axis"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["y", "mean"], ["centred"]),
        helper.make_node("Add", ["centred", "y"], ["out"]),
    )
    parts["constants"]["batch.axis"] = np.array([0], np.int64)


def _first_row(parts: dict[str, Any]) -> None:
    """Everybody's count is that of row 0: equal in batches of equals, so only streams of different ages show it."""
    parts["constants"]["row"] = np.array([0], np.int64)
    _replace(
        parts,
        "count.next",
        helper.make_node("Gather", ["counted", "row"], ["first"], axis=0),
        helper.make_node("Sub", ["counted", "counted"], ["nought"]),
        helper.make_node("Add", ["nought", "first"], ["everybody"]),
        helper.make_node("Min", ["everybody", "ceiling"], ["count.next"]),
    )


def _swapped(parts: dict[str, Any]) -> None:
    parts["pairs"] |= {"average": "energy.next", "energy": "average.next"}


def _forgets(parts: dict[str, Any]) -> None:
    """Reads no memory: whole and chunked differ."""
    _replace(parts, "remembered", helper.make_node("Sub", ["average", "average"], ["remembered"]))


def _counts_for_ever(parts: dict[str, Any]) -> None:
    _replace(parts, "count.next", helper.make_node("Identity", ["counted"], ["count.next"]))


def _doubles(parts: dict[str, Any]) -> None:
    _replace(parts, "count.next", helper.make_node("Add", ["counted", "counted"], ["count.next"]))


def _random(parts: dict[str, Any]) -> None:
    _replace(
        parts,
        "out",
        helper.make_node("RandomNormalLike", ["y"], ["noise"], scale=1e-9),
        helper.make_node("Add", ["y", "noise"], ["out"]),
    )


def _wrong_golden(parts: dict[str, Any]) -> None:
    parts["golden"] = {"outputs": np.random.default_rng(5).normal(size=(3, 1, STEPS, 2)).astype(np.float32)}


def _short_golden(parts: dict[str, Any]) -> None:
    chunks = np.zeros((1, 1, CHUNK), np.int16)
    parts["golden"] = {"chunks": chunks, "outputs": np.zeros((1, 1, STEPS, 2), np.float32)}


def _far_from_torch(parts: dict[str, Any]) -> None:
    """Excuses any deviation by declaring it."""
    parts["manifest"] = {"provenance": Provenance(data="none", revision="none", tolerance=10.0)}
    _wrong_golden(parts)


def _hidden_counter(parts: dict[str, Any]) -> None:
    """A memory that the manifest does not know of."""
    del parts["pairs"]["count"]


def _fixed_batch(parts: dict[str, Any]) -> None:
    parts["batch"] = 1


def _no_such_option(parts: dict[str, Any]) -> None:
    parts["manifest"] = {"options": {"tokens": ["<blank>", "A", "B"], "blank": 0, "units": "characters"}}


def _infinite(parts: dict[str, Any]) -> None:
    """Divides by the loudness of the chunk: fine until somebody is silent."""
    _replace(
        parts,
        "out",
        helper.make_node("ReduceSum", ["power", "one"], ["loud"], keepdims=1),
        helper.make_node("Div", ["loud", "loud"], ["unity"]),
        helper.make_node("Unsqueeze", ["unity", "two"], ["unity.column"]),
        helper.make_node("Mul", ["y", "unity.column"], ["out"]),
    )


#: What is wrong, how, and the check that must say so.
BREAKERS: dict[str, tuple[Change, str]] = {
    "batch mean": (_batch_mean, "company"),
    "row 0 for everybody": (_first_row, "company"),
    "state names swapped": (_swapped, "chunk: golden example"),
    "memory not read": (_forgets, "chunk: golden example"),
    "counts for ever": (_counts_for_ever, "endurance: states do not grow"),
    "doubles until it bursts": (_doubles, "endurance"),
    "random": (_random, "sleep: same input, same bits"),
    "wrong golden": (_wrong_golden, "chunk: golden example"),
    "golden that proves nothing": (_short_golden, "chunk: golden example proves memory"),
    "excused by its own tolerance": (_far_from_torch, "chunk: golden example"),
    "memory not in the manifest": (_hidden_counter, "contract: file and manifest agree"),
    "batch fixed at 1": (_fixed_batch, "contract: file and manifest agree"),
    "options of another model": (_no_such_option, "contract: task options"),
    "breaks on silence": (_infinite, "endurance: finite"),
}
