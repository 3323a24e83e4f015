"""``x[B, 3, 41], four [B, 64] -> [B, 1, 1] + four``, whose declared shape is [1, 64], and whose names are numbers.

A voice activity detector on rows of 41 features. Its host keeps the last two rows and gives three.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from tests.export.adopt.support import TOLERANCE, Adoption, Array, Original, adoption, exported, far, together

NUMBERS = (2, 3, 6, 7)
TOML = """
[input]
step_seconds = 0.016
chunk = 1
overlap = 2
"""


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.head = nn.Linear(3 * 41, 32), nn.Linear(64, 1)
        self.first, self.second = nn.LSTM(32, 64, batch_first=True), nn.LSTM(64, 64, batch_first=True)

    def forward(self, x: Tensor, h: Tensor, c: Tensor, g: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        y = torch.tanh(self.inlet(x.reshape(-1, 1, 3 * 41)))
        y, (h, c) = self.first(y, (h[None], c[None]))
        y, (g, d) = self.second(y, (g[None], d[None]))
        return torch.sigmoid(self.head(y)), h[0], c[0], g[0], d[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    given = {"input_1": torch.zeros(1, 3, 41)} | {f"input_{number}": torch.zeros(1, 64) for number in NUMBERS}
    outputs = ["output_1", *(f"output_{number}" for number in NUMBERS)]
    exported(Detector(), path, given, outputs, {name: {0: "batch"} for name in [*given, *outputs]})
    proto = onnx.load(path)
    for output in proto.graph.output[1:]:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source, TOML)


def by_its_host(source: Path, rows: Array) -> Array:
    """Rows [n, 41] -> [n, 1]."""
    original, states = Original(source), {f"input_{number}": np.zeros((1, 64), np.float32) for number in NUMBERS}
    rows = np.concatenate([np.zeros((2, 41), np.float32), rows])
    gave = []
    for at in range(len(rows) - 2):
        got = original(input_1=rows[None, at : at + 3], **states)
        states = {f"input_{number}": got[f"output_{number}"] for number in NUMBERS}
        gave.append(got["output_1"][0, 0])
    return np.stack(gave)


def test_what_was_found(adopted: Adoption) -> None:
    pairs = {f"input_{number}": f"output_{number}" for number in NUMBERS}
    assert adopted.pairs == {"input_1.overlap": "input_1.overlap.next", **pairs}
    assert adopted.said("state input_6 -> output_6", "batch on axis 0")
    assert not adopted.said("did    freed")
    manifest = adopted.manifest
    assert (manifest.input.dtype, manifest.input.chunk_shape, manifest.input.step_seconds) == (
        "float32",
        (1, 41),
        0.016,
    )
    assert (manifest.input.sample_rate, manifest.max_batch) == (None, 3)
    assert [(output.name, output.shape) for output in manifest.outputs] == [("output_1", (1, 1))]


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [np.random.default_rng(seed).standard_normal((50, 41)).astype(np.float32) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["output_1"], by_its_host(source, stream)) <= TOLERANCE
