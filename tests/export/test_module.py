"""From somebody's module to a file that is served: what PyTorch gives, the file gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export import ExportError, RefusedError, export
from streamer import load
from streamer.contract.judge import CHUNK_TOLERANCE
from streamer.contract.probe import Signal, deviation, random_signal, run
from streamer.engine.model import Model
from tests.export.modules import (
    Cell,
    Counting,
    Deciding,
    OneStream,
    PaddedConv,
    SequenceFirst,
    Several,
    Sound,
    Tokens,
    zeros,
)

pytestmark = pytest.mark.long


def exported(path: Path, *arguments: Any, **options: Any) -> tuple[Model, list[str]]:
    torch.manual_seed(0)
    lines: list[str] = []
    verdict = export(*arguments, path, endurance=30, max_batch=8, say=lines.append, **options)
    assert verdict.ok
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return Model.load(path), lines


def first(model: Model, signal: Signal) -> np.ndarray:
    """The first output of one stream, [steps, ...]."""
    return np.concatenate(list(run(model, signal)[0][model.manifest.outputs[0].name][:, 0]))


def tensor(signal: Signal, name: str) -> torch.Tensor:
    """One stream's rows [1, n, ...]."""
    return torch.from_numpy(np.concatenate(list(signal.inputs[name]), axis=1))


def test_time_first_and_batch_in_the_middle(tmp_path: Path) -> None:
    module = SequenceFirst()
    model, _ = exported(tmp_path / "Seq first.onnx", module, zeros(5, 1, 4), (zeros(1, 1, 8), zeros(1, 1, 8)))
    manifest = model.manifest
    assert (manifest.name, manifest.input.chunk_shape, manifest.task) == ("seq-first", (5, 4), "raw")
    assert {state.in_: state.shape for state in manifest.states} == {"lstm.h": (1, 8), "lstm.c": (1, 8)}
    assert manifest.provenance.parameters == sum(weight.numel() for weight in module.parameters())
    signal = random_signal(manifest, 9, 1, np.random.default_rng(1))
    with torch.no_grad():
        want, _ = module(tensor(signal, "x").transpose(0, 1), (zeros(1, 1, 8), zeros(1, 1, 8)))
    assert deviation(first(model, signal), want[:, 0].numpy()) < CHUNK_TOLERANCE


def test_starts_that_are_not_zero_are_folded_in(tmp_path: Path) -> None:
    module, start = Cell(), (torch.ones(1, 8), torch.randn(1, 8))
    model, lines = exported(tmp_path / "cell.onnx", module, zeros(1, 4), start)
    assert "did    folded in the start of c, which is not zero" in lines
    signal = random_signal(model.manifest, 7, 1, np.random.default_rng(1))
    want, (h, c) = [], start
    with torch.no_grad():
        for row in tensor(signal, "x")[0]:
            y, (h, c) = module(row[None], h, c)
            want.append(y[0].numpy())
    assert deviation(first(model, signal), np.stack(want)) < CHUNK_TOLERANCE


def test_a_counter_that_starts_at_three(tmp_path: Path) -> None:
    module = Counting()
    model, _ = exported(tmp_path / "counting.onnx", module, zeros(1, 1, 4), torch.tensor([3]))
    signal = random_signal(model.manifest, 12, 1, np.random.default_rng(1))
    with torch.no_grad():
        want = tensor(signal, "x")[0] + module.embedding(torch.arange(3, 15) % 10)
    assert deviation(first(model, signal), want.numpy()) < CHUNK_TOLERANCE


def test_several_inputs_and_a_condition(tmp_path: Path) -> None:
    module = Several()
    model, _ = exported(
        tmp_path / "several.onnx", module, (zeros(1, 2, 3), zeros(1, 2, 1)), zeros(1, 1, 8),
        conditions={"speaker": zeros(1, 3)},
    )  # fmt: skip
    manifest = model.manifest
    assert [(i.name, i.chunk_shape) for i in manifest.inputs] == [("x", (2, 3)), ("wind", (2, 1))]
    assert [(c.name, c.shape) for c in manifest.conditions] == [("speaker", (3,))]
    assert [(o.name, o.shape) for o in manifest.outputs] == [("mean", (2, 8)), ("last", (1, 8))]
    signal = random_signal(manifest, 8, 1, np.random.default_rng(1))
    speaker = torch.from_numpy(signal.conditions["speaker"])
    with torch.no_grad():
        want, _ = module(tensor(signal, "x"), tensor(signal, "wind"), speaker, zeros(1, 1, 8))
    outputs, _ = run(model, signal)
    assert deviation(first(model, signal), want["mean"][0].numpy()) < CHUNK_TOLERANCE
    assert deviation(outputs["last"][:, 0, 0], want["mean"][0, 1::2].numpy()) < CHUNK_TOLERANCE


class Levels(nn.Module):
    """Whole numbers that are only made floats."""

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(0.5 * h + 1e-3 * x.float())
        return h, h


def test_integers_without_limits_are_taken_where_forward_takes_all_of_them(tmp_path: Path) -> None:
    model, _ = exported(tmp_path / "levels.onnx", Levels(), torch.zeros(1, 3, dtype=torch.int64), zeros(1, 3))
    assert (model.manifest.input.dtype, model.manifest.input.limits) == ("int64", None)
    given = np.array([2**62, -(2**62), 7]).reshape(-1, *model.manifest.input.chunk_shape[1:])
    got = load(tmp_path / "levels.onnx").stream().step(given)
    np.testing.assert_allclose(next(iter(got.values())).ravel(), [1, -1, np.tanh(0.007)], rtol=1e-5)


class Frame(nn.Module):
    """160 samples a call, and no other number of them."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(160, 8)

    def forward(self, pcm: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.cell(pcm, h)
        return h, h


def test_a_row_of_samples_says_which_axis_is_time(tmp_path: Path) -> None:
    """The error names the line that makes it right, and with this line it is."""
    with pytest.raises(ExportError, match=r"pcm is one row of 160 values.* say time=\{'pcm': 1\}.*give step_seconds"):
        exported(tmp_path / "no.onnx", Frame(), zeros(1, 160), zeros(1, 8), sample_rate=16000)
    model, _ = exported(
        tmp_path / "frame.onnx", Frame(), zeros(1, 160), zeros(1, 8), sample_rate=16000, time={"pcm": 1}
    )
    assert (model.manifest.input.sample_rate, model.manifest.input.chunk_shape) == (16000, (160,))


def test_sound_comes_as_16_bit_samples(tmp_path: Path) -> None:
    module = Sound()
    model, _ = exported(tmp_path / "sound.onnx", module, zeros(1, 1600), zeros(1, 1, 16), sample_rate=16000)
    source = model.manifest.input
    assert (source.dtype, source.chunk_shape, source.sample_rate) == ("int16", (1600,), 16000)
    signal = random_signal(model.manifest, 5, 1, np.random.default_rng(1))
    with torch.no_grad():
        want, _ = module(tensor(signal, "pcm").float() / 32768, zeros(1, 1, 16))
    assert deviation(first(model, signal), want[0].numpy()) < CHUNK_TOLERANCE


def test_a_module_for_one_stream_is_served_alone(tmp_path: Path) -> None:
    module = OneStream()
    model, lines = exported(tmp_path / "one.onnx", module, zeros(4), zeros(8))
    assert model.manifest.max_batch == 1
    assert any("max_batch = 1" in line for line in lines)
    signal = random_signal(model.manifest, 6, 1, np.random.default_rng(1))
    want, h = [], zeros(8)
    with torch.no_grad():
        for row in tensor(signal, "x")[0]:
            y, h = module(row, h)
            want.append(y.numpy())
    assert deviation(first(model, signal), np.stack(want)) < CHUNK_TOLERANCE


def test_labels_make_a_classifier_of_every_step(tmp_path: Path) -> None:
    labels = [f"class {number}" for number in range(8)]
    state = (zeros(1, 1, 8), zeros(1, 1, 8))
    model, lines = exported(tmp_path / "steps.onnx", SequenceFirst(), zeros(5, 1, 4), state, labels=labels)
    assert (model.manifest.task, model.manifest.options["mode"]) == ("classify", "running")
    assert "did    made probabilities of output by a softmax" in lines
    scores = first(model, random_signal(model.manifest, 3, 1, np.random.default_rng(1)))
    assert np.allclose(scores.sum(-1), 1, atol=1e-5)


def test_a_file_that_breaks_a_law_is_not_written(tmp_path: Path) -> None:
    """A sum that never ends: float32 stops counting some day, and the stream with it."""

    class Summing(nn.Module):
        def forward(self, x, total):
            total = total + x.abs()
            return total, total

    path = tmp_path / "sum.onnx"
    path.write_bytes(b"the old file")
    with pytest.raises(RefusedError, match="endurance"):
        export(Summing(), zeros(1, 4), zeros(1, 4), path, endurance=200, max_batch=4, say=lambda line: None)
    assert path.read_bytes() == b"the old file"
    assert [file.name for file in tmp_path.iterdir()] == ["sum.onnx"]


def test_what_would_be_right_for_one_length_only_may_be_said_to_be(tmp_path: Path) -> None:
    module = PaddedConv()
    model, _ = exported(tmp_path / "padded.onnx", module, zeros(1, 4, 4), zeros(1, 1, 8), whole=False)
    signal = random_signal(model.manifest, 4, 1, np.random.default_rng(1))
    want, h = [], zeros(1, 1, 8)
    with torch.no_grad():
        for chunk in signal.inputs["x"]:
            y, h = module(torch.from_numpy(chunk), h)
            want.append(y[0].numpy())
    assert deviation(first(model, signal), np.concatenate(want)) < CHUNK_TOLERANCE


@pytest.mark.parametrize(
    ("module", "example", "states", "options", "why"),
    [
        (Tokens(), torch.zeros(1, 1, dtype=torch.int64), zeros(1, 1, 8), {}, r"limits of ids, limits=\(0, highest\)"),
        (Deciding(), zeros(1, 4), zeros(1, 4), {}, r"branches on a tensor's value.*torch\.where"),
        (Cell(), zeros(1, 4), (zeros(1, 8), zeros(1, 8)), {"sample_rate": 16000}, "step_seconds"),
        (Cell(), zeros(1, 4), (zeros(1, 8), zeros(1, 8)), {"labels": ["a", "b"]}, "2 labels"),
        (Cell, zeros(1, 4), None, {}, "torch.nn.Module"),
    ],
)
def test_what_is_refused(
    module: Any, example: Any, states: Any, options: dict[str, Any], why: str, tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with pytest.raises(ExportError, match=why):
        export(module, example, states, tmp_path / "no.onnx", say=lambda line: None, **options)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")  # PyTorch's exporter prints whole graphs where it fails
