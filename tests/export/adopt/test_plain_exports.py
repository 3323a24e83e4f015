"""Plain modules as ``torch.onnx.export`` writes them, by both exporters, under the names that these make up: adopted
without a word, and what PyTorch gives row by row."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
from torch import Tensor, nn

from export.adopt.build import adopt
from export.adopt.report import AdoptionError
from streamer.engine.model import Model
from tests.cli.command import streamer
from tests.export.adopt.support import TOLERANCE, Array, adoption, far, together, written

pytestmark = pytest.mark.long


class Lstm(nn.Module):
    """Two layers on eight channels."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(8, 24, 2, batch_first=True), nn.Linear(24, 3)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.lstm(x, state)
        return self.out(y), state


class TimeFirst(nn.Module):
    """PyTorch's own order: time before the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(8, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        y, h = self.gru(x, h)
        return self.out(y), h


class Classifier(nn.Module):
    """Of the last row of each call; the states of two layers in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.GRU(8, 24, batch_first=True), nn.GRU(24, 24, batch_first=True)
        self.out = nn.Linear(24, 3)

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, one = self.one(x, states[0])
        y, two = self.two(y, states[1])
        return self.out(y[:, -1]), (one, two)


class Tcn(nn.Module):
    """Channels before time, and the left context of every layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Conv1d(8, 16, 3), nn.Conv1d(16, 16, 3, dilation=2), nn.Conv1d(16, 3, 1)

    def forward(self, x: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.cat([one, x], 2)
        y = torch.cat([two, torch.relu(self.one(x))], 2)
        return self.out(torch.relu(self.two(y))), x[:, :, -2:], y[:, :, -4:]


class Window(nn.Module):
    """Attention over the last seven rows: keys and values look alike."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = torch.cat([keys, self.k(x)], 1), torch.cat([values, self.v(x)], 1)
        scores = torch.softmax(self.q(x) @ keys.transpose(1, 2) / 8**0.5, -1)
        return self.out(x + scores @ values), keys[:, 1:], values[:, 1:]


class Policy(nn.Module):
    """45 numbers, not 45 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.GRUCell(45, 32), nn.Linear(32, 8)

    def forward(self, obs: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(obs, h)
        return self.out(h), h


class Cells(nn.Module):
    """Four states of one shape, in plain arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.LSTMCell(8, 24), nn.LSTMCell(24, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor, h1: Tensor, c1: Tensor, h2: Tensor, c2: Tensor) -> tuple[Tensor, ...]:
        h1, c1 = self.one(x, (h1, c1))
        h2, c2 = self.two(h1, (h2, c2))
        return self.out(h2), h1, c1, h2, c2


class Letters(nn.Module):
    """Numbers of tokens, which must be in the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.lstm, self.out = nn.Embedding(96, 16), nn.LSTM(16, 24, batch_first=True), nn.Linear(24, 96)

    def forward(self, ids: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, state = self.lstm(self.table(ids), state)
        return self.out(y), state


class Unrolled(nn.Module):
    """A linear state space whose loop over four rows is Python's: the exporter writes it out row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.keep, self.take, self.out = nn.Parameter(torch.linspace(0.1, 0.9, 24)), nn.Linear(8, 24), nn.Linear(24, 3)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for step in range(4):
            state = self.keep * state + self.take(x[:, step])
            rows.append(self.out(state))
        return torch.stack(rows, 1), state


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


#: Module, an example of a call's rows, states, where time is in it, and the shape of a chunk once adopted.
PLAIN: dict[str, tuple[nn.Module, Tensor, Any, int | None, tuple[int, ...]]] = {
    "lstm": (Lstm(), torch.randn(1, 1, 8), (zeros(2, 1, 24), zeros(2, 1, 24)), 1, (1, 8)),
    "time first": (TimeFirst(), torch.randn(1, 1, 8), zeros(1, 1, 24), 0, (1, 8)),
    "classifier": (Classifier(), torch.randn(1, 1, 8), (zeros(1, 1, 24), zeros(1, 1, 24)), 1, (1, 8)),
    "channels first": (Tcn(), torch.randn(1, 8, 4), [zeros(1, 8, 2), zeros(1, 16, 4)], 2, (4, 8)),
    "window": (Window(), torch.randn(1, 1, 8), [zeros(1, 7, 8), zeros(1, 7, 8)], 1, (1, 8)),
    "policy": (Policy(), torch.randn(1, 45), zeros(1, 32), None, (1, 45)),
    "cells": (Cells(), torch.randn(1, 8), [zeros(1, 24) for _ in range(4)], None, (1, 8)),
    "unrolled": (Unrolled(), torch.randn(1, 4, 8), zeros(1, 24), 1, (4, 8)),
    "letters": (Letters(), torch.zeros(1, 1, dtype=torch.long), (zeros(1, 1, 24), zeros(1, 1, 24)), 1, (1,)),
}


def written_by(
    path: Path, name: str, dynamo: bool, inputs: Sequence[str] | None = None, outputs: Sequence[str] | None = None
) -> Path:
    module, x, states, _, _ = PLAIN[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        torch.onnx.export(
            module.eval(),
            (x, *states) if isinstance(states, list) else (x, states),
            path,
            input_names=inputs,
            output_names=outputs,
            dynamo=dynamo,
            verbose=False,
        )
    return path


@torch.no_grad()
def by_torch(name: str, rows: Array) -> Array:
    """``rows`` [n, ...] one call after another."""
    module, _, states, time, chunk = PLAIN[name]
    gave = []
    for part in rows.reshape(-1, *chunk):
        call = torch.from_numpy(part if time is not None else part[0])
        call = call.movedim(0, time - 1)[None] if time else call[:, None] if time == 0 else call[None]
        if isinstance(states, list):
            y, *states = module(call, *states)
        else:
            y, states = module(call, states)
        gave.append((y.movedim(time, 0) if time and y.ndim == 3 else y).reshape(chunk[0], -1).numpy())
    return np.concatenate(gave)


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
@pytest.mark.parametrize("name", list(PLAIN))
def test_a_plain_module(tmp_path: Path, name: str, dynamo: bool) -> None:
    adopted = adoption(written_by(tmp_path / "plant.onnx", name, dynamo))
    spec = adopted.manifest.input
    assert spec.chunk_shape == PLAIN[name][4]
    assert len(adopted.pairs) == len(PLAIN[name][2]) if not isinstance(PLAIN[name][2], Tensor) else 1
    rng = np.random.default_rng(1)
    streams = [
        rng.integers(0, 96, (24, *spec.chunk_shape[1:]))
        if spec.dtype == "int64"
        else rng.standard_normal((24, *spec.chunk_shape[1:])).astype(np.float32)
        for _ in range(2)
    ]
    streams = streams[: adopted.manifest.max_batch]
    assert len(streams) == 2
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        (output,) = outputs.values()
        want = by_torch(name, stream)
        assert far(output.reshape(want.shape), want) <= TOLERANCE


def test_tokens_that_no_table_has_are_the_nearest(tmp_path: Path) -> None:
    adopted = adoption(written_by(tmp_path / "m.onnx", "letters", True))
    assert adopted.manifest.input.limits == ((0, 95),)
    wild, tame = np.array([-1, 5, 96, 2**40]), np.array([0, 5, 95, 95])
    got, want = (next(iter(together(adopted.model, [ids])[0].values())) for ids in (wild, tame))
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_names_that_are_swapped_do_not_mislead(tmp_path: Path, dynamo: bool) -> None:
    """``hn`` is what the cell became, and ``cn`` the state: the graph knows better than who typed the list."""
    source = written_by(tmp_path / "m.onnx", "lstm", dynamo, ["x", "h0", "c0"], ["y", "cn", "hn"])
    adopted = adoption(source)
    assert adopted.pairs == {"h0": "cn", "c0": "hn"}
    assert adopted.said("state h0 -> cn (by the graph)")
    rows = np.random.default_rng(2).standard_normal((24, 8)).astype(np.float32)
    assert far(together(adopted.model, [rows])[0]["y"], by_torch("lstm", rows)) <= TOLERANCE


def test_what_was_taken_is_said_with_the_line_that_changes_it(tmp_path: Path) -> None:
    adopted = adoption(written_by(tmp_path / "m.onnx", "policy", False, ["obs", "h"], ["action", "hn"]))
    assert adopted.said("stream obs", "1 step of 45 values a call", "[input] time = 1")
    assert adopted.said("result action", "1 step of 8")


def test_one_tensor_given_for_two_states(tmp_path: Path) -> None:
    """The exporter makes one input of them, and leaves the other without any use."""
    same = zeros(1, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Cells().eval(), (torch.randn(1, 8), same, same, same, same), tmp_path / "m.onnx", dynamo=True, verbose=False
        )
    with pytest.raises(AdoptionError, match=r"nothing in the graph uses the input h1, c1, h2.*given twice"):
        adopt(tmp_path / "m.onnx", tmp_path / "out.onnx")


def test_ten_lines(tmp_path: Path) -> None:
    """What a new user types: the default name of the file, what it is called, and the commands that run it."""
    written_by(tmp_path / "plant.onnx", "lstm", True, ["x", "h0", "c0"], ["y", "hn", "cn"])
    done = streamer("adopt", tmp_path / "plant.onnx", "--max-batch", "2", "--endurance", "20")
    assert done.returncode == 0, done.stderr
    target = tmp_path / "plant.streamer.onnx"
    assert Model.load(target).manifest.name == "plant"
    last = done.stdout.decode().splitlines()[-2:]
    assert last == [f"run it: streamer run {target} rows.csv", f"serve it: streamer serve --model {target}"]


SOUND = """(float[b, 64] audio, float[b, 1] h) => (float[b, 1, 1] y, float[b, 1] hn) {
    m = ReduceMax<axes = [1], keepdims = 1>(audio)  s = Add(m, h)  hn = Tanh(s)
    ax = Constant<value = int64[1] {1}>()  p = Sigmoid(hn)  y = Unsqueeze(p, ax)
}"""


@pytest.mark.parametrize(
    ("task", "made", "hint"),
    [
        (
            "",
            "samples.npy",
            "streamer run {} samples.npy  # numpy.save of the int16 samples of one channel at 16000 Hz",
        ),
        (
            '[task]\nname = "classify"\nmode = "running"\nlabels = ["a"]\n',
            "sound.wav",
            "streamer classify --model {} sound.wav",
        ),
    ],
)
def test_the_hint_runs_a_model_of_sound(tmp_path: Path, task: str, made: str, hint: str) -> None:
    source = written(tmp_path / "m.onnx", SOUND)
    (tmp_path / "c.toml").write_text(f"[input]\nsample_rate = 16000\n{task}", "utf-8")
    done = streamer("adopt", source, "-c", tmp_path / "c.toml", "--max-batch", "2", "--endurance", "20")
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stdout.decode().splitlines() if line.startswith("run it: "))
    assert said == f"run it: {hint.format(tmp_path / 'm.streamer.onnx')}"
    pcm = np.arange(640, dtype=np.int16)
    np.save(tmp_path / "samples.npy", pcm)
    soundfile.write(tmp_path / "sound.wav", pcm, 16000)
    ran = streamer(
        *said.removeprefix("run it: streamer ").partition("  #")[0].replace(made, str(tmp_path / made)).split()
    )
    assert ran.returncode == 0, ran.stderr


def test_weights_that_were_left_behind(tmp_path: Path) -> None:
    source = written_by(tmp_path / "plant.onnx", "lstm", False)
    proto = onnx.load(source)
    onnx.save(proto, source, save_as_external_data=True, location="plant.onnx.data", size_threshold=0)
    (tmp_path / "plant.onnx.data").unlink()
    with pytest.raises(
        AdoptionError, match=r"the weights of .*plant\.onnx are in plant\.onnx\.data, which is not beside"
    ):
        adopt(source, tmp_path / "out.onnx")
