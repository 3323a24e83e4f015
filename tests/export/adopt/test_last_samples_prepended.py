"""``input[B, T], state[2, B, 128], sr[] -> output[B, 1], stateN[2, B, 128]``: a voice activity detector.

Its host keeps the last 64 samples of every call and puts them in front of the next. Below its ``sr`` hang two networks,
one for each sample rate.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.export.adopt.support import (
    TOLERANCE,
    Adoption,
    Array,
    Original,
    adoption,
    exported,
    far,
    heard,
    sound,
    together,
)

CONTEXT, CHUNK = 64, 512
TOML = """
[input]
sample_rate = 16000
chunk = 512
overlap = 64
"""


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv1d(1, 6, 128, stride=64)
        self.narrow = nn.Conv1d(1, 6, 64, stride=32)
        self.lstm = nn.LSTM(6, 128)
        self.head = nn.Linear(128, 1)

    def forward(self, input: Tensor, state: Tensor, sr: Tensor) -> tuple[Tensor, Tensor]:
        x = 30 * input.unsqueeze(1)
        if int(sr) == 16000:
            features = self.wide(x)
        else:
            features = self.narrow(x)
        y, (h, c) = self.lstm(torch.tanh(features).permute(2, 0, 1), (state[0:1], state[1:2]))
        return torch.sigmoid(self.head(y[-1])), torch.cat([h, c])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("detector")
    given = {"input": torch.zeros(1, CONTEXT + CHUNK), "state": torch.zeros(2, 1, 128), "sr": torch.tensor(16000)}
    free = {"input": {0: "batch", 1: "samples"}, "state": {1: "batch"}, "output": {0: "batch"}, "stateN": {1: "batch"}}
    return exported(Detector(), folder / "detector.onnx", given, ["output", "stateN"], free, scripted=True)


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source, TOML)


def by_its_host(source: Path, pcm: Array, chunk: int = CHUNK, keep: int = CONTEXT, rate: int = 16000) -> Array:
    """[chunks]."""
    original, context, state = Original(source), np.zeros((1, keep), np.float32), np.zeros((2, 1, 128), np.float32)
    gave = []
    for new in pcm.reshape(-1, 1, chunk):
        x = np.concatenate([context, new.astype(np.float32) / 32768], axis=1)
        got = original(input=x, state=state, sr=np.array(rate))
        context, state = x[:, -keep:], got["stateN"]
        gave.append(got["output"][0, 0])
    return np.array(gave)


def test_what_was_found_and_done(source: Path, adopted: Adoption) -> None:
    assert "If" in {node.op_type for node in onnx.load(source).graph.node}
    assert "If" not in {node.op_type for node in onnx.load(adopted.path).graph.node}
    assert adopted.said("state state -> stateN", "batch on axis 1")
    assert adopted.said("made sr the constant 16000")
    assert adopted.said("last 64 samples", "inside")
    manifest = adopted.manifest
    assert (manifest.input.name, manifest.input.dtype, manifest.input.chunk_shape) == ("pcm", "int16", (512,))
    assert (manifest.task, manifest.input.sample_rate, manifest.max_batch) == ("raw", 16000, 3)
    assert adopted.pairs == {"pcm.overlap": "pcm.overlap.next", "state": "stateN"}
    assert {state.in_: state.shape for state in manifest.states}["state"] == (2, 128)


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [sound(20 * CHUNK, seed) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["output"], by_its_host(source, stream)) <= TOLERANCE


def test_through_the_daemons_engine(source: Path, adopted: Adoption, tmp_path: Path) -> None:
    pcm = sound(20 * CHUNK, 4)
    assert far(heard(adopted.path, pcm, tmp_path)["output"], by_its_host(source, pcm)) <= TOLERANCE


def test_another_rate_is_another_constant(source: Path) -> None:
    narrow = adoption(source, "[input]\nsample_rate = 8000\nchunk = 256\noverlap = 32\n")
    assert narrow.said("made sr the constant 8000")
    pcm = sound(20 * 256, 5)
    want = by_its_host(source, pcm, 256, 32, 8000)
    assert far(together(narrow.model, [pcm])[0]["output"], want) <= TOLERANCE
    assert far(by_its_host(source, pcm, 256, 32, 16000), want) > 100 * TOLERANCE


def test_the_samples_before_matter(source: Path, adopted: Adoption) -> None:
    """Without them the comparisons above would be of nothing."""
    forgetful = adoption(source, TOML.replace("overlap = 64", "overlap = 0").replace("512", "576"))
    pcm = sound(18 * CHUNK, 6)
    got = together(forgetful.model, [pcm])[0]["output"]
    assert far(got[:1], by_its_host(source, pcm)[:1]) > 10 * TOLERANCE
