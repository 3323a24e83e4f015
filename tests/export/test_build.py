"""From a PyTorch module to a judged file, for both acoustic models and one that shares no code with them."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from export import document
from export.build import RefusedError, build, graph
from export.compare import compare
from models.speech.acoustic import Acoustic, AcousticConfig
from streamer.contract.judge import Verdict
from streamer.engine.model import Model
from streamer.engine.proof import judge_file
from tests.export.small import INFO, SmallLSTM

pytestmark = pytest.mark.long

SMALL = {"bands": 24, "front": 32, "channels": 64, "skip": 64, "dilations": (1, 2), "hidden": 64, "layers": 2}


def module(kind: str) -> tuple[Any, dict[str, Any], float]:
    """(module with random weights, info, chunk in ms)."""
    torch.manual_seed(5)
    if kind == "small":
        return SmallLSTM(hidden=160), INFO, 100.0
    model = Acoustic(AcousticConfig(kind, 8000, len(INFO["tokens"]), **SMALL)).eval()
    with torch.no_grad():  # as set from data in training
        model.front.layers["norm"].mean.fill_(-3.0)
        model.front.layers["norm"].std.fill_(4.0)
    return model, INFO | {"name": kind, "sample_rate": 8000, "hop": model.hop}, 160.0


@dataclass
class Built:
    module: Any
    path: Path
    verdict: Verdict

    @property
    def graph(self) -> onnx.ModelProto:
        return onnx.load(str(self.path))


class Builder:
    """Builds each variant once: an export takes seconds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[tuple[str, bool], Built] = {}

    def __call__(self, kind: str, int8: bool = False) -> Built:
        if (kind, int8) not in self.done:
            model, info, chunk_ms = module(kind)
            path = self.folder / f"{kind}-{int8}" / "model.onnx"
            verdict = build(model, info, path, chunk_ms=chunk_ms, int8=int8, max_batch=8, long_chunks=200)
            self.done[kind, int8] = Built(model, path, verdict)
        return self.done[kind, int8]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("built"))


@pytest.fixture(params=["wavenet", "lstm", "small"])
def built(request: pytest.FixtureRequest, builder: Builder) -> Built:
    return builder(request.param)


@pytest.fixture(params=["wavenet", "lstm"])
def built_int8(request: pytest.FixtureRequest, builder: Builder) -> Built:
    return builder(request.param, int8=True)


def test_the_file_keeps_its_laws(built: Built) -> None:
    assert built.verdict.ok
    assert {f.check for f in built.verdict.findings if f.law == "chunk"} >= {"PyTorch whole = ONNX chunked"}
    assert judge_file(built.path, seed=3, long_chunks=30).refusals == ()
    assert [path.name for path in built.path.parent.iterdir()] == [built.path.name]


def test_the_contract_is_that_of_the_module(built: Built) -> None:
    manifest = Model.load(built.path).manifest
    start = built.module.initial_state(1)
    assert {s.in_: (s.out, s.shape) for s in manifest.states} == {
        name: (f"{name}.next", tuple(tensor.shape[1:])) for name, tensor in start.items()
    }
    assert (manifest.input.name, manifest.outputs[0].name) == ("pcm", "log_probs")
    assert manifest.provenance.tolerance < 1e-5
    assert manifest.provenance.scores == {"dev.wer": 0.5}
    assert len(manifest.golden.chunks) == 4


def test_only_the_batch_is_free(built: Built) -> None:
    for value in (*built.graph.graph.input, *built.graph.graph.output):
        batch, *rest = value.type.tensor_type.shape.dim
        assert batch.dim_param == "batch"
        assert all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in rest)


def test_every_weight_is_stored_once(built: Built) -> None:
    graph = built.graph.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    learned = sum(parameter.numel() for name, parameter in built.module.named_parameters() if "middle" not in name)
    fixed = sum(buffer.numel() for buffer in built.module.buffers())
    elements = sum(int(np.prod(tensor.dims)) for tensor in stored.values())
    assert learned * 0.9 < elements < learned + fixed + 2000  # batch norms are folded, shapes and constants added
    used = {name for node in graph.node for name in node.input}
    assert set(stored) <= used
    for node in graph.node:
        if node.op_type == "LSTM":  # weights, recurrence and bias: what a quantiser or a reader looks for
            assert set(node.input[1:4]) <= set(stored)
    assert not {node.op_type for node in graph.node} & {"Shape", "Constant", "Identity"}


def test_nothing_tells_where_it_was_made(built: Built) -> None:
    data = built.path.read_bytes()
    home, here = str(Path.home()), str(Path(__file__).parents[2])
    for trace in (home, here, sys.prefix, ".py", "site-packages", "stack_trace", "torch."):
        assert trace.encode() not in data, trace
    graph = built.graph
    assert [prop.key for prop in graph.metadata_props] == ["streamer.manifest"]
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)


def test_int8_keeps_the_laws_bit_for_bit_in_company(built_int8: Built) -> None:
    company = [finding for finding in built_int8.verdict.findings if finding.law == "company"]
    assert len(company) > 5
    assert all(finding.measured == 0 for finding in company)
    checks = {f.check: f for f in built_int8.verdict.findings if f.law == "chunk"}
    assert (checks["PyTorch float32 near ONNX int8"].measured or 1) < 0.05
    assert Model.load(built_int8.path).manifest.provenance.tolerance > 1e-5


def test_int8_weights_are_bytes_of_seven_bits(built_int8: Built) -> None:
    graph = built_int8.graph.graph
    kinds = [node.op_type for node in graph.node]
    assert "MatMulInteger" in kinds
    assert "LSTM" not in kinds
    weights = [numpy_helper.to_array(t) for t in graph.initializer if t.data_type == onnx.TensorProto.INT8]
    learned = sum(p.numel() for name, p in built_int8.module.named_parameters() if p.ndim > 1 and "middle" not in name)
    assert sum(w.size for w in weights) > 0.7 * learned
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) == 64


def test_cells_stay_within_their_limit() -> None:
    """Of an LSTM in int8, step by step; without a limit they pass it."""
    made, info, chunk_ms = module("lstm")
    spec = document.input_spec(info, chunk_ms)
    pcm = np.random.default_rng(0).integers(-9000, 9000, (1, *spec.chunk_shape)).astype(np.int16)
    reached = {}
    for limit in (None, 0.05):
        proto = ir.to_proto(graph(made, (spec,), int8=True, cell_limit=limit))
        session = onnxruntime.InferenceSession(proto.SerializeToString())
        zeros = {i.name: np.zeros([1, *i.shape[1:]], np.float32) for i in session.get_inputs() if i.name != spec.name}
        given = dict(
            zip([o.name for o in session.get_outputs()], session.run(None, zeros | {spec.name: pcm}), strict=True)
        )
        cells = [array for name, array in given.items() if re.search(r"\.c(\.|_|$)", name)]
        assert cells
        reached[limit] = max(float(np.abs(array).max()) for array in cells)
    assert reached[0.05] <= np.float32(0.05) < reached[None]


def test_int8_beside_float32(builder: Builder) -> None:
    paths = [builder("lstm").path, builder("lstm", int8=True).path]
    first, second = compare(paths, [np.random.default_rng(0).integers(-3000, 3000, 9999).astype(np.int16)])
    assert (first["deviation"], first["same_token"], first["rms"]) == (0.0, 1.0, 0.0)
    assert 0 < second["deviation"] < 0.05
    assert second["rms"] < 0.05
    assert second["megabytes"] < first["megabytes"]


def test_scales_over_the_batch_are_refused(builder: Builder, tmp_path: Path) -> None:
    """What onnxruntime's own dynamic quantisation writes takes its scale over the whole batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = tmp_path / "dynamic.onnx"
    quantize_dynamic(builder("wavenet").path, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    assert "MatMulInteger" in {node.op_type for node in onnx.load(str(target)).graph.node}
    broken = judge_file(target, long_chunks=30).refusals
    assert any(f.law == "company" and (f.measured or 0) > 1e-3 for f in broken)


class _Peeks(SmallLSTM):
    """Subtracts the mean of the chunk, which depends on where the chunks are cut."""

    def forward(self, pcm, state):
        log_probs, new = super().forward(pcm, state)
        return log_probs - log_probs.mean(dim=1, keepdim=True), new


def test_a_refused_export_leaves_what_was_there(tmp_path: Path) -> None:
    torch.manual_seed(1)
    target = tmp_path / "model.onnx"
    target.write_bytes(b"the old file")
    with pytest.raises(RefusedError, match="PyTorch whole = ONNX chunked") as caught:
        build(_Peeks(), INFO, target, chunk_ms=100, max_batch=4, long_chunks=30)
    assert not caught.value.verdict.ok
    assert target.read_bytes() == b"the old file"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
