"""``audio_signal[B, 80, T], length[B], three caches -> logprobs, encoded_lengths, *_next``: a cache-aware recogniser.

Features come transposed, T is open and in the metadata; ``length`` is always the whole window, and how much comes out
is known, too. One of the caches counts how much of another one is there, up to all of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.export.adopt.support import TOLERANCE, Adoption, Array, Arrays, Original, adoption, exported, far, together

WINDOW, SHIFT, STEPS = 25, 16, 2
LAYERS, LEFT, WIDTH, KERNEL, VOCABULARY = 2, 6, 16, 5, 9
METADATA = {
    "model_type": "EncDecHybridRNNTCTCBPEModel",
    "window_size": str(WINDOW),
    "chunk_shift": str(SHIFT),
    "subsampling_factor": "8",
    "vocab_size": str(VOCABULARY - 1),
    "cache_last_channel_dim1": str(LAYERS),
    "cache_last_channel_dim2": str(LEFT),
    "cache_last_channel_dim3": str(WIDTH),
}


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.conv = nn.Conv1d(WIDTH, WIDTH, KERNEL, groups=WIDTH)

    def forward(self, x: Tensor, channel: Tensor, time: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x`` [B, steps, width]; ``hidden`` [B, 1, left + steps]."""
        seen = torch.cat([channel, x], dim=1)
        scores = (self.query(x) @ self.key(seen).transpose(1, 2)).masked_fill(hidden, -1000.0)
        x = x + scores.softmax(-1) @ self.value(seen)
        samples = torch.cat([time, x.transpose(1, 2)], dim=2)
        return x + torch.tanh(self.conv(samples)).transpose(1, 2), seen[:, -LEFT:], samples[:, :, -(KERNEL - 1) :]


class Recogniser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.outlet = nn.Conv1d(80, WIDTH, 17, stride=8), nn.Linear(WIDTH, VOCABULARY)
        self.layers = nn.ModuleList([Layer() for _ in range(LAYERS)])

    def forward(
        self, signal: Tensor, length: Tensor, channel: Tensor, time: Tensor, channel_len: Tensor
    ) -> tuple[Tensor, ...]:
        there = torch.arange(signal.shape[2])[None, None] < length[:, None, None]
        x = torch.tanh(self.inlet(signal * there)).transpose(1, 2)  # [B, steps, width]
        left = torch.arange(LEFT)[None] < LEFT - channel_len[:, None]
        hidden = torch.nn.functional.pad(left.float(), (0, STEPS))[:, None] > 0
        channels, times = [], []
        for number, layer in enumerate(self.layers):
            x, c, t = layer(x, channel[:, number], time[:, number], hidden)
            channels.append(c)
            times.append(t)
        after = (torch.stack(channels, 1), torch.stack(times, 1), (channel_len + STEPS).clamp(max=LEFT))
        return self.outlet(x).log_softmax(-1), (length - 17) // 8 + 1, *after


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(6)
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.onnx"
    given = {
        "audio_signal": torch.randn(2, 80, WINDOW),
        "length": torch.full((2,), WINDOW),
        "cache_last_channel": torch.zeros(2, LAYERS, LEFT, WIDTH),
        "cache_last_time": torch.zeros(2, LAYERS, WIDTH, KERNEL - 1),
        "cache_last_channel_len": torch.zeros(2, dtype=torch.int64),
    }
    after = ["cache_last_channel_next", "cache_last_time_next", "cache_last_channel_next_len"]
    outputs = ["logprobs", "encoded_lengths", *after]
    free = {name: {0: "batch"} for name in [*given, *outputs]} | {"audio_signal": {0: "batch", 2: "time"}}
    return exported(Recogniser(), path, given, outputs, free, METADATA)


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source)


def by_its_host(source: Path, rows: Array) -> Array:
    """Rows [n, 80] -> [steps, 9]; before the first one there are rows of zeros."""
    original = Original(source)
    rows = np.concatenate([np.zeros((WINDOW - SHIFT, 80), np.float32), rows])
    states: Arrays = {
        "cache_last_channel": np.zeros((1, LAYERS, LEFT, WIDTH), np.float32),
        "cache_last_time": np.zeros((1, LAYERS, WIDTH, KERNEL - 1), np.float32),
        "cache_last_channel_len": np.zeros(1, np.int64),
    }
    gave = []
    for at in range(0, len(rows) - WINDOW + 1, SHIFT):
        got = original(
            audio_signal=rows[None, at : at + WINDOW].transpose(0, 2, 1), length=np.array([WINDOW]), **states
        )
        states = {
            "cache_last_channel": got["cache_last_channel_next"],
            "cache_last_time": got["cache_last_time_next"],
            "cache_last_channel_len": got["cache_last_channel_next_len"],
        }
        assert got["encoded_lengths"].tolist() == [STEPS]
        gave.append(got["logprobs"][0])
    return np.concatenate(gave)


def test_what_was_found_and_done(adopted: Adoption) -> None:
    assert adopted.pairs["cache_last_channel_len"] == "cache_last_channel_next_len"
    assert adopted.said("made length the constant 25")
    assert adopted.said("dropped the output encoded_lengths")
    assert adopted.said(
        "stream audio_signal", "16 steps of 80 values a call (time on axis 2), after the last 9 of the call before"
    )
    manifest = adopted.manifest
    assert (manifest.input.chunk_shape, manifest.max_batch) == ((SHIFT, 80), 3)
    assert [(output.name, output.shape) for output in manifest.outputs] == [("logprobs", (STEPS, VOCABULARY))]


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [np.random.default_rng(seed).standard_normal((12 * SHIFT, 80)).astype(np.float32) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["logprobs"], by_its_host(source, stream)) <= TOLERANCE
