"""``mix[1, 257, 1, 2]`` and three caches, the batch on another axis of each ``-> enh, *_out``.

A speech enhancer on complex spectra. Its host transforms frames of 512 samples every 256 under the root of a Hann
window, and adds up what comes under the same window. The batch is written down as 1, and lies on another axis in every
state; in ``inter_cache`` it is folded into the 33 bands. States are assigned in place, slice by slice.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile as sf
import torch
from torch import Tensor, nn

from tests.cli.command import streamer
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

FFT, HOP = 512, 256
STATES = {
    "conv_cache": (2, 1, 16, 16, 33),
    "tra_cache": (2, 3, 1, 1, 16),
    "inter_cache": (2, 1, 33, 16),
}
TOML = """
[input]
sample_rate = 16000

[host]
fft = 512
hop = 256
window = "sqrt-hann"
"""


class Half(nn.Module):
    """Encoder or decoder: a convolution over 17 frames, three gates over time, a recurrence over time in every band."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, (3, 3), padding=(0, 1), dilation=(8, 1), groups=16)
        self.gates = nn.ModuleList([nn.GRU(16, 16, batch_first=True) for _ in range(3)])
        self.inter = nn.GRU(16, 16, batch_first=True)

    def forward(self, x: Tensor, conv: Tensor, tra: Tensor, inter: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        frames = torch.cat([conv, x], dim=2)  # [B, 16, 17, 33]
        x = torch.tanh(self.conv(frames)) + x
        for number, gate in enumerate(self.gates):
            energy = x.square().mean(-1).transpose(1, 2)  # [B, 1, 16]
            y, tra[number] = gate(energy, tra[number].clone())
            x = x * torch.sigmoid(y).transpose(1, 2)[..., None] * 2
        bands = x.permute(0, 3, 2, 1)  # [B, 33, 1, 16]
        flat = bands.reshape(bands.shape[0] * bands.shape[1], bands.shape[2], bands.shape[3])
        y, inter = self.inter(flat, inter)
        y = y.reshape(*bands.shape).permute(0, 3, 2, 1)
        return x + y, frames[:, :, 1:], tra, inter


class Enhancer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bands, self.spread = nn.Linear(257, 33, bias=False), nn.Linear(33, 257, bias=False)
        self.inlet, self.outlet = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 2, 1)
        self.halves = nn.ModuleList([Half(), Half()])

    def forward(
        self, mix: Tensor, conv_cache: Tensor, tra_cache: Tensor, inter_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        real, imaginary = mix[..., 0].permute(0, 2, 1), mix[..., 1].permute(0, 2, 1)  # [B, 1, 257]
        seen = torch.stack([torch.sqrt(real**2 + imaginary**2 + 1e-12), real, imaginary], dim=1)
        x = self.inlet(self.bands(seen))
        conv_cache, tra_cache, inter_cache = conv_cache.clone(), tra_cache.clone(), inter_cache.clone()
        for number, half in enumerate(self.halves):
            x, conv, tra, inter = half(x, conv_cache[number], tra_cache[number], inter_cache[number])
            conv_cache[number], tra_cache[number], inter_cache[number] = conv, tra, inter
        mask = torch.tanh(self.spread(self.outlet(x)))  # [B, 2, 1, 257]
        a, b = mask[:, 0], mask[:, 1]
        enhanced = torch.stack([real * a - imaginary * b, real * b + imaginary * a], dim=-1)  # [B, 1, 257, 2]
        return enhanced.permute(0, 2, 1, 3), conv_cache, tra_cache, inter_cache


@pytest.fixture(scope="module", params=["simplified", "unsimplified"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Public files of this kind come in both forms: as the exporter wrote them, and with all folded that can be."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp(request.param) / "enhancer.onnx"
    given = {"mix": torch.randn(1, 257, 1, 2), **{name: torch.zeros(shape) for name, shape in STATES.items()}}
    names = ["enh", *(f"{name}_out" for name in STATES)]
    if request.param == "unsimplified":
        return exported(Enhancer(), path, given, names, folded=False, opset=11)
    return simplified(exported(Enhancer(), path, given, names))


def simplified(path: Path) -> Path:
    """No constants and shapes are left to be worked out: onnxruntime's own folding, as onnx-simplifier's."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return path


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source, TOML)


def by_its_host(source: Path, pcm: Array) -> Array:
    """[samples], 256 later than they went in."""
    original, states = Original(source), {name: np.zeros(shape, np.float32) for name, shape in STATES.items()}
    window = np.sqrt(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT))
    before, after, gave = np.zeros(FFT), np.zeros(FFT), []
    for new in pcm.reshape(-1, HOP):
        before = np.concatenate([before[HOP:], new / 32768])
        spectrum = np.fft.rfft(before * window)
        mix = np.stack([spectrum.real, spectrum.imag], axis=-1).astype(np.float32)
        got = original(mix=mix[None, :, None], **states)
        states = {name: got[f"{name}_out"] for name in STATES}
        enhanced = got["enh"][0, :, 0]
        after = np.concatenate([after[HOP:], np.zeros(HOP)])
        after += np.fft.irfft(enhanced[:, 0] + 1j * enhanced[:, 1]) * window
        gave.append(after[:HOP])
    return np.concatenate(gave)


@pytest.mark.long
def test_what_was_found_and_done(source: Path, adopted: Adoption) -> None:
    operators = Counter(node.op_type for node in onnx.load(source).graph.node)
    assert operators["ScatterND"] == 12
    assert (operators["Shape"] > 20) == (operators["Constant"] > 300) == ("unsimplified" in source.parent.name)
    assert adopted.said("state conv_cache -> conv_cache_out", "batch on axis 1")
    assert adopted.said("state tra_cache -> tra_cache_out", "batch on axis 2")  # 2 and 3 are both 1, and either will do
    assert adopted.said("state inter_cache -> inter_cache_out", "batch folded into axis 2")
    assert adopted.said("freed a batch fixed at 1")
    assert adopted.said("result enh", "which gives sound as a spectrum")
    manifest = adopted.manifest
    assert (manifest.max_batch, manifest.latency, manifest.input.chunk_shape) == (3, FFT - HOP, (HOP,))
    shapes = {state.in_: state.shape for state in manifest.states}
    assert shapes["conv_cache"] == (2, 16, 16, 33)
    assert shapes["inter_cache"] == (2, 1, 33, 16)
    assert shapes["audio.tail"] == (FFT - HOP,)


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [sound(30 * HOP, seed) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["audio"], by_its_host(source, stream)) <= TOLERANCE


def test_through_the_daemons_engine(source: Path, adopted: Adoption, tmp_path: Path) -> None:
    pcm = sound(30 * HOP, 4)
    rest = np.zeros(FFT - HOP, np.int16)
    assert far(heard(adopted.path, pcm, tmp_path)["audio"], by_its_host(source, np.append(pcm, rest))) <= TOLERANCE


@pytest.mark.long
def test_it_enhances_a_file(source: Path, tmp_path: Path) -> None:
    """Nothing moved: what is late is taken away."""
    model = adoption(source, TOML + '[task]\nname = "enhance"\n').path
    given, came = tmp_path / "in.wav", tmp_path / "out.wav"
    pcm = sound(30 * HOP + 100, 5)
    sf.write(given, pcm, 16000)
    done = streamer("enhance", given, "-o", came, "--model", model)
    assert (done.stderr, done.returncode) == (b"", 0)
    late = FFT - HOP
    wanted = by_its_host(source, np.append(pcm, np.zeros(HOP - 100 + late, np.int16)))[late : late + len(pcm)]
    enhanced, rate = sf.read(came, dtype="float32")
    assert rate == 16000
    assert np.abs(enhanced - wanted).max() <= 1.01 / 32768
    assert np.abs(enhanced).max() > 0.01
