"""What can be wrong with a checkpoint, a module or a command line, and what each is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from export import document
from export.__main__ import main
from export.fold import fold, name_batch_axis, strip
from export.int8 import quantise
from export.trace import trace
from streamer.contract.manifest import Packed
from tests.export.small import HOP, INFO, SmallLSTM

pytestmark = pytest.mark.long


@pytest.mark.parametrize(("milliseconds", "samples"), [(10, 160), (100, 1600), (320, 5120), (None, 4800)])
def test_chunk_lengths(milliseconds: float | None, samples: int) -> None:
    assert document.chunk_length(INFO, milliseconds) == samples


@pytest.mark.parametrize(("step", "steps"), [(40, 8), (60, 5), (700, 1)])
def test_the_default_chunk_is_whole_steps_near_300_ms(step: int, steps: int) -> None:
    assert document.chunk_length({"sample_rate": 1000, "hop": step}) == steps * step


@pytest.mark.parametrize(("milliseconds", "nearest"), [(325, "320 ms"), (1, "10 ms"), (14, "10 ms"), (0, "10 ms")])
def test_a_chunk_is_a_whole_number_of_steps(milliseconds: float, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"take {nearest}"):
        document.chunk_length(INFO, milliseconds)


def test_options_from_pieces() -> None:
    info = {**INFO, "lexicon": {"BA": [["B", "A"], ["B"]], "A": [["A"]]}}
    options = document.options(info)
    lexicon = Packed.model_validate(options["lexicon"]).unpack().decode()
    assert lexicon == "A\tA\nBA\tB A\nBA\tB\n"
    assert (options["tokens"], options["units"], options["blank"]) == (INFO["tokens"], "characters", 0)
    assert options["decoder"]["kind"] == "beam"


def test_options_ready_made_win() -> None:
    made = {"tokens": ["_", "a"], "units": "words", "endpoint": {"silence": 1.0}}
    assert document.options({**INFO, "options": made}) == {"blank": 0, **made}


def test_scores_are_flat_numbers() -> None:
    scores = {"dev": {"wer": 0.25, "words": 10}, "best": float("nan"), "note": "good"}
    assert document.flat_scores(scores) == {"dev.wer": 0.25, "dev.words": 10.0}


def test_golden_is_cut_by_chunks() -> None:
    chunks = np.arange(12, dtype=np.int16).reshape(3, 1, 4)
    golden = document.golden(chunks, {"y": np.arange(6, dtype=np.float32).reshape(1, 6, 1)})
    assert [tensor.array().ravel().tolist() for tensor in golden.outputs["y"]] == [[0, 1], [2, 3], [4, 5]]
    assert [tensor.array().shape for tensor in golden.chunks] == [(1, 4)] * 3


class _StartsElsewhere(SmallLSTM):
    def initial_state(self, batch):
        return {name: tensor + 1 for name, tensor in super().initial_state(batch).items()}


class _Forgets(SmallLSTM):
    def forward(self, pcm, state):
        y, new = super().forward(pcm, state)
        del new["lstm.c"]
        return y, new


class _Grows(SmallLSTM):
    def forward(self, pcm, state):
        y, new = super().forward(pcm, state)
        return y, new | {"front.overlap": torch.cat([state["front.overlap"], new["front.overlap"]], dim=1)}


@pytest.mark.parametrize(
    ("module", "said"),
    [(_StartsElsewhere(), "does not start as zero"), (_Forgets(), "and returns"), (_Grows(), "comes back as")],
)
def test_states_that_break_the_contract(module: SmallLSTM, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        trace(module, {"pcm": torch.zeros(1, 10 * HOP, dtype=torch.int16)})


def _matmul(weights: np.ndarray, rows: int) -> ir.Model:
    """y = x @ weights with x [batch, rows, K]."""
    x = ir.Value(name="x", shape=ir.Shape(["n", rows, weights.shape[0]]), type=ir.TensorType(ir.DataType.FLOAT))
    w = ir.Value(name="w", const_value=ir.tensor(weights, name="w"))
    node = ir.node("MatMul", [x, w])
    node.outputs[0].name = "y"
    node.outputs[0].shape, node.outputs[0].type = ir.Shape(["n", rows, weights.shape[1]]), x.type
    graph = ir.Graph([x], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def test_full_scale_products_do_not_saturate() -> None:
    """Largest activations on largest weights: 16-bit sums of pairs, as AVX2 adds them, must still be exact."""
    weights = np.full((64, 64), 2.0, np.float32)
    weights[:, 1::2] *= -1
    model = _matmul(weights, 3)
    assert quantise(model, {"w"}) == 1
    strip(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.stack([np.full((3, 64), 1.0), np.full((3, 64), -1e4)]).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    np.testing.assert_allclose(y, x @ weights, rtol=1e-5)


def test_a_row_of_zeros_and_a_row_of_nan_stay_what_they_are() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    model = _matmul(weights, 1)
    quantise(model, {"w"})
    strip(model)
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    x = np.random.default_rng(1).normal(size=(4, 1, 64)).astype(np.float32)
    alone = session.run(None, {"x": x[2:3]})[0]
    x[0], x[1] = 0, np.nan
    (y,) = session.run(None, {"x": x})
    assert not y[0].any()
    assert np.isnan(y[1]).all()
    np.testing.assert_array_equal(y[2:3], alone)


def test_only_trained_matrices_are_quantised() -> None:
    assert quantise(_matmul(np.ones((64, 64), np.float32), 1), set()) == 0


def test_three_layers_in_one_module_are_all_unrolled() -> None:
    model = trace(SmallLSTM(hidden=32, layers=3), {"pcm": torch.zeros(1, 4 * HOP, dtype=torch.int16)})
    fold(model)
    assert [node.op_type for node in model.graph].count("LSTM") == 3
    assert quantise(model, set()) == 3
    name_batch_axis(model)
    strip(model)
    assert "LSTM" not in {node.op_type for node in model.graph}
    assert "Squeeze" in {node.op_type for node in model.graph}
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())


# -- the command line --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from models.speech.acoustic import Acoustic, AcousticConfig
    from models.training.checkpoint import save

    torch.manual_seed(2)
    config = AcousticConfig("wavenet", 8000, 5, bands=16, front=16, channels=16, skip=16, dilations=(1,))
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    save(path, Acoustic(config), {**INFO, "name": "tiny", "sample_rate": 8000, "hop": 320})
    return path


def test_a_checkpoint_becomes_a_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from streamer.engine.model import Model

    target = tmp_path / "new" / "tiny.onnx"
    (tmp_path / "words.txt").write_text("AB\tA B\n")
    (tmp_path / "scores.json").write_text(json.dumps({"test.wer": 0.125}))
    arguments = [str(checkpoint), "-o", str(target), "--chunk-ms", "160", "--max-batch", "4", "--endurance", "50"]
    arguments += [
        "--name",
        "renamed",
        "--lexicon",
        str(tmp_path / "words.txt"),
        "--scores",
        str(tmp_path / "scores.json"),
    ]
    assert main(arguments) == 0
    manifest = Model.load(target).manifest
    assert (manifest.name, manifest.max_batch, manifest.chunk, manifest.steps) == ("renamed", 4, 1280, 4)
    assert manifest.provenance.scores == {"test.wer": 0.125}
    assert Packed.model_validate(manifest.options["lexicon"]).unpack() == b"AB\tA B\n"
    assert "tiny.onnx: keeps its laws" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chunk-ms", "300"], "take 320 ms"),
        (["--options", "missing.json"], "missing.json"),
        (["--name", "Not A Name"], "name"),
        (["--int8"], "nothing in this model can be quantised"),
    ],
)
def test_what_cannot_be_exported(
    checkpoint: Path, tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "tiny.onnx"
    assert main([str(checkpoint), "-o", str(target), "--max-batch", "2", "--endurance", "20", *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing.pt"), "-o", str(tmp_path / "x.onnx")]) == 2
    assert "missing.pt" in capsys.readouterr().err
