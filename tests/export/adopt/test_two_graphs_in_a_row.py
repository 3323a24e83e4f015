"""``[1, 1, 257] + [1, 2, 128, 2] -> mask + state``, then ``[1, 1, 512] + [1, 2, 128, 2] -> the same``: a denoiser.

Its host transforms frames of 512 samples every 128, gives the first graph the magnitudes, multiplies the spectrum with
the mask, transforms back, gives the second graph the frame, and adds up what comes. No window. In both graphs the batch
is written down as 1, in the second one's outputs as ``N``, and the tensors have names like ``input_2``.
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

FFT, HOP = 512, 128
TOML = """
[input]
sample_rate = 16000

[host]
fft = 512
hop = 128
window = "none"
chain = "second.onnx"
"""


class Layers(nn.Module):
    """Two LSTMs, their states [1, layer, unit, h or c]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(width, 128, batch_first=True), nn.LSTM(128, 128, batch_first=True)])

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        after = []
        for number, layer in enumerate(self.layers):
            h, c = (state[:, number, :, part].reshape(1, 1, 128) for part in range(2))
            x, (h, c) = layer(x, (h, c))
            after.append(torch.stack([h.reshape(1, 128), c.reshape(1, 128)], dim=-1))
        return x, torch.stack(after, dim=1)


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = Layers(257), nn.Linear(128, 257)

    def forward(self, magnitude: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, after = self.layers(torch.log(magnitude + 1e-3), state)
        return torch.sigmoid(4 * self.head(y)), after


class Second(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.norm = nn.Conv1d(512, 16, 1, bias=False), nn.LayerNorm(16)
        self.layers, self.head = Layers(16), nn.Linear(128, 16)
        self.decoder = nn.Conv1d(16, 512, 1, bias=False)

    def forward(self, frame: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        code = self.encoder(frame.transpose(1, 2)).transpose(1, 2)
        y, after = self.layers(self.norm(code), state)
        return self.decoder((code * torch.sigmoid(self.head(y))).transpose(1, 2)).transpose(1, 2), after


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(2)
    folder, state = tmp_path_factory.mktemp("denoiser"), torch.zeros(1, 2, 128, 2)
    given = {"input_2": torch.zeros(1, 1, 257), "input_3": state}
    exported(First(), folder / "first.onnx", given, ["activation_2", "tf_op_layer_stack_2"])
    given = {"input_4": torch.zeros(1, 1, 512), "input_5": state}
    second = exported(Second(), folder / "second.onnx", given, ["conv1d_3", "tf_op_layer_stack_5"])
    proto = onnx.load(second)
    for output in proto.graph.output:
        output.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(proto, second)
    return folder / "first.onnx"


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source, TOML)


def by_its_host(source: Path, pcm: Array) -> Array:
    """[samples], 384 later than they went in."""
    first, second = Original(source), Original(source.with_name("second.onnx"))
    states = [np.zeros((1, 2, 128, 2), np.float32)] * 2
    before, after, gave = np.zeros(FFT), np.zeros(FFT), []
    for new in pcm.reshape(-1, HOP):
        before = np.concatenate([before[HOP:], new / 32768])
        spectrum = np.fft.rfft(before)
        got = first(input_2=np.abs(spectrum).astype(np.float32)[None, None], input_3=states[0])
        states[0] = got["tf_op_layer_stack_2"]
        frame = np.fft.irfft(spectrum * got["activation_2"][0, 0])
        got = second(input_4=frame.astype(np.float32)[None, None], input_5=states[1])
        states[1] = got["tf_op_layer_stack_5"]
        after = np.concatenate([after[HOP:], np.zeros(HOP)]) + got["conv1d_3"][0, 0]
        gave.append(after[:HOP])
    return np.concatenate(gave)


def test_what_was_found_and_done(adopted: Adoption) -> None:
    assert adopted.said("state input_3 -> tf_op_layer_stack_2", "batch on axis 0")
    assert adopted.said("state input_5 -> tf_op_layer_stack_5", "batch on axis 0")
    assert adopted.said("freed a batch fixed at 1")
    assert adopted.said("second graph behind the first one")
    assert adopted.said("overlap-add inside")
    manifest = adopted.manifest
    assert (manifest.input.chunk_shape, manifest.max_batch) == ((HOP,), 3)
    assert [(output.name, output.shape) for output in manifest.outputs] == [("audio", (HOP,))]
    assert (manifest.latency, manifest.flush) == (FFT - HOP, FFT - HOP)
    assert set(adopted.pairs) == {"pcm.overlap", "input_3", "chain.input_5", "audio.tail"}


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [sound(40 * HOP, seed) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["audio"], by_its_host(source, stream)) <= TOLERANCE


def test_through_the_daemons_engine(source: Path, adopted: Adoption, tmp_path: Path) -> None:
    """The end of a stream comes out with zeros behind it, as the manifest's flush says."""
    pcm = sound(40 * HOP, 4)
    rest = np.zeros(FFT - HOP, np.int16)
    assert far(heard(adopted.path, pcm, tmp_path)["audio"], by_its_host(source, np.append(pcm, rest))) <= TOLERANCE
