"""``x[N, T, 80] + 98 cached tensors -> log_probs, new_*``: a streaming recogniser of 16 layers in 6 stacks.

Six caches a layer, the batch on axis 1 in four of them and on axis 0 in two, one of the convolution in front, and a
counter of frames in int64, which hides what of the left context is not there yet. It takes 45 rows of features and goes
on by 32: both numbers are in its metadata, so that nothing need be said.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.export.adopt.support import TOLERANCE, Adoption, Array, Arrays, Original, adoption, exported, far, together

pytestmark = pytest.mark.long

T, SHIFT, FRAMES = 45, 32, 16
STACKS = (2, 2, 3, 4, 3, 2)
LEFT, WIDTH, KERNEL, VOCABULARY = 6, 8, 5, 11
#: Sizes of a layer's caches, ``N`` being the batch.
LAYER = {
    "cached_key": (LEFT, "N", 4),
    "cached_nonlin_attn": (1, "N", LEFT, 3 * WIDTH // 4),
    "cached_val1": (LEFT, "N", 4),
    "cached_val2": (LEFT, "N", 4),
    "cached_conv1": ("N", WIDTH, KERNEL // 2),
    "cached_conv2": ("N", WIDTH, KERNEL // 2),
}
CACHES = {f"{kind}_{layer}": shape for layer in range(sum(STACKS)) for kind, shape in LAYER.items()}
CACHES["embed_states"] = ("N", 128, 3, 19)
CACHES["processed_lens"] = ("N",)
METADATA = {"model_type": "zipformer2", "version": "1", "T": str(T), "decode_chunk_len": str(SHIFT)}


def at_batch(shape: tuple[int | str, ...], batch: int = 1) -> tuple[int, ...]:
    return tuple(batch if size == "N" else int(size) for size in shape)


class Layer(nn.Module):
    """Attention over the left context, once for each of the values, and two convolutions: every cache is used."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)
        self.nonlin, self.back = nn.Linear(WIDTH, 3 * WIDTH // 4), nn.Linear(3 * WIDTH // 4, WIDTH)
        self.values = nn.ModuleList([nn.Linear(WIDTH, 4), nn.Linear(WIDTH, 4)])
        self.outs = nn.ModuleList([nn.Linear(4, WIDTH), nn.Linear(4, WIDTH)])
        self.convs = nn.ModuleList([nn.Conv1d(WIDTH, WIDTH, KERNEL // 2 + 1, groups=WIDTH) for _ in range(2)])

    def forward(self, x: Tensor, caches: list[Tensor], hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """``x`` [frames, N, width]; ``hidden`` [N, left + frames]."""
        key, nonlin, *rest = caches
        keys = torch.cat([key, self.key(x)])  # [left + frames, N, 4]
        scores = torch.einsum("tnc,snc->nts", self.query(x), keys).masked_fill(hidden[:, None], -1000.0)
        weights = scores.softmax(-1)  # [N, frames, left + frames]
        gated = torch.cat([nonlin, self.nonlin(x).transpose(0, 1)[None]], dim=2)  # [1, N, left + frames, 6]
        x = x + self.back((weights @ gated[0]).transpose(0, 1))
        new = [keys[-LEFT:], gated[:, :, -LEFT:]]
        after = []
        for value, out, conv, old, tail in zip(self.values, self.outs, self.convs, rest[:2], rest[2:], strict=True):
            values = torch.cat([old, value(x)])
            x = x + out((weights @ values.transpose(0, 1)).transpose(0, 1))
            samples = torch.cat([tail, x.permute(1, 2, 0)], dim=2)
            x = x + torch.tanh(conv(samples)).permute(2, 0, 1)
            new.append(values[-LEFT:])
            after.append(samples[:, :, -(KERNEL // 2) :])
        return x / x.square().mean(-1, keepdim=True).add(0.1).sqrt(), [*new, *after]


class Recogniser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 128, 3, stride=(2, 4), padding=(0, 0))  # 45 x 80 -> 22 x 20
        self.mix = nn.Conv2d(128, 4, (7, 2))  # 19 bands are what a cache of 19 goes with
        self.inlet = nn.Linear(4 * 19, WIDTH)
        self.layers = nn.ModuleList([Layer() for _ in range(sum(STACKS))])
        self.outlet = nn.Linear(2 * WIDTH, VOCABULARY)

    def forward(self, x: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        *layers, embed, processed = caches
        y = torch.tanh(self.embed(x[:, None]))  # [N, 128, 22, 20]
        context = y[:, :, FRAMES - 3 : FRAMES, :19]
        y = self.mix(y) + torch.nn.functional.pad(embed.mean((1, 3), keepdim=True), (0, 0, 0, FRAMES - 3))
        y = self.inlet(y.permute(2, 0, 1, 3).flatten(2))  # [16, N, width]
        back = LEFT - torch.arange(LEFT)  # how many frames ago
        hidden = torch.cat([back[None] > processed[:, None], torch.zeros(len(x), FRAMES, dtype=torch.bool)], dim=1)
        new: list[Tensor] = []
        for number, layer in enumerate(self.layers):
            y, after = layer(y, list(layers[6 * number : 6 * number + 6]), hidden)
            new += after
        steps = torch.cat([y[0::2], y[1::2]], dim=-1).transpose(0, 1)  # [N, 8, 2 width]
        return self.outlet(steps).log_softmax(-1), *new, context, processed + FRAMES


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.onnx"
    given = {"x": torch.zeros(1, T, 80)} | {name: torch.zeros(at_batch(shape)) for name, shape in CACHES.items()}
    given["processed_lens"] = torch.zeros(1, dtype=torch.int64)
    outputs = ["log_probs", *(f"new_{name}" for name in CACHES)]
    free = {"x": {0: "N"}, "log_probs": {0: "N"}}
    for name, shape in CACHES.items():
        free[name] = free[f"new_{name}"] = {shape.index("N"): "N"}
    return exported(Recogniser(), path, given, outputs, free, METADATA)


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source)


def by_its_host(source: Path, rows: Array) -> Array:
    """Rows [n, 80], n = 45 + 32 k -> [8 (k + 1), 11]."""
    original = Original(source)
    states: Arrays = {name: np.zeros(at_batch(shape), np.float32) for name, shape in CACHES.items()}
    states["processed_lens"] = np.zeros(1, np.int64)
    gave = []
    for at in range(0, len(rows) - T + 1, SHIFT):
        got = original(x=rows[None, at : at + T], **states)
        states = {name: got[f"new_{name}"] for name in CACHES}
        gave.append(got["log_probs"][0])
    return np.concatenate(gave)


def test_what_was_found(source: Path, adopted: Adoption) -> None:
    assert len(CACHES) == 98
    assert {name: out for name, out in adopted.pairs.items() if name != "x.overlap"} == {n: f"new_{n}" for n in CACHES}
    assert adopted.said("stream x", "32 steps of 80 values a call", "after the last 13 of the call before")
    for name, shape in CACHES.items():
        assert adopted.said(f"state {name} ->", f"batch on axis {shape.index('N')}")
    manifest = adopted.manifest
    assert (manifest.input.chunk_shape, manifest.max_batch) == ((SHIFT, 80), 3)
    assert [(output.name, output.shape) for output in manifest.outputs] == [("log_probs", (8, VOCABULARY))]
    counter = next(state for state in manifest.states if state.in_ == "processed_lens")
    assert (counter.dtype, counter.shape) == ("int64", (1,))


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    """The 13 rows before a stream are zeros here, and a host that wants the same gives them first."""
    streams = [np.random.default_rng(seed).standard_normal((8 * SHIFT, 80)).astype(np.float32) for seed in range(3)]
    before = np.zeros((T - SHIFT, 80), np.float32)
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["log_probs"], by_its_host(source, np.concatenate([before, stream]))) <= TOLERANCE
