"""``signal[B, 2400, 1] int32, state[B, S] float16 -> logprobs[B, 10, 35], state_next``: all in one state.

A recogniser that takes 300 ms of sound at 8 kHz as whole numbers. Its host does nothing but carry the state.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    written,
)

CHUNK, TAIL, HIDDEN = 2400, 160, 64
TOML = "[input]\nsample_rate = 8000\n"


class Recogniser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.recurrent = nn.Conv1d(1, 16, 400, stride=240), nn.GRU(16, HIDDEN, batch_first=True)
        self.outlet = nn.Linear(HIDDEN, 35)

    def forward(self, signal: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        tail, hidden = state.float().split([TAIL, HIDDEN], dim=1)
        samples = torch.cat([tail, signal[:, :, 0].float() / 32768], dim=1)
        x = torch.log(self.inlet(samples[:, None]).abs() + 1e-2).transpose(1, 2)  # [B, 10, 16]
        y, hidden = self.recurrent(x, hidden[None].contiguous())
        return self.outlet(y).log_softmax(-1), torch.cat([samples[:, -TAIL:], hidden[0]], dim=1).half()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("recogniser") / "recogniser.onnx"
    given = {
        "signal": torch.zeros(1, CHUNK, 1, dtype=torch.int32),
        "state": torch.zeros(1, TAIL + HIDDEN, dtype=torch.float16),
    }
    outputs = ["logprobs", "state_next"]
    return exported(Recogniser(), path, given, outputs, {name: {0: "batch"} for name in [*given, *outputs]})


@pytest.fixture(scope="module")
def adopted(source: Path) -> Adoption:
    return adoption(source, TOML)


def by_its_host(source: Path, pcm: Array) -> Array:
    """[steps, 35]."""
    original, state, gave = Original(source), np.zeros((1, TAIL + HIDDEN), np.float16), []
    for chunk in pcm.reshape(-1, 1, CHUNK, 1):
        got = original(signal=chunk.astype(np.int32), state=state)
        state = got["state_next"]
        gave.append(got["logprobs"][0])
    return np.concatenate(gave)


def test_what_was_found_and_done(adopted: Adoption) -> None:
    assert adopted.said("state state -> state_next", "float16 [1, 224]", "batch on axis 0")
    assert adopted.said("16-bit PCM, times 1")
    manifest = adopted.manifest
    assert (manifest.input.name, manifest.input.dtype, manifest.input.chunk_shape) == ("pcm", "int16", (CHUNK,))
    assert [(state.dtype, state.shape) for state in manifest.states] == [("float16", (TAIL + HIDDEN,))]
    assert [(output.name, output.shape) for output in manifest.outputs] == [("logprobs", (10, 35))]
    assert manifest.max_batch == 3


def test_streams_side_by_side_are_what_the_host_made_of_each(source: Path, adopted: Adoption) -> None:
    streams = [sound(10 * CHUNK, seed) for seed in range(3)]
    for stream, outputs in zip(streams, together(adopted.model, streams), strict=True):
        assert far(outputs["logprobs"], by_its_host(source, stream)) <= TOLERANCE


def test_through_the_daemons_engine(source: Path, adopted: Adoption, tmp_path: Path) -> None:
    pcm = sound(10 * CHUNK, 4)
    assert far(heard(adopted.path, pcm, tmp_path)["logprobs"], by_its_host(source, pcm)) <= TOLERANCE


def test_half_precision_throughout_is_judged_with_numbers_that_it_holds(tmp_path: Path) -> None:
    """A warning of NumPy would fail this test; infinity times zero would break a law."""
    source = written(
        tmp_path / "m.onnx",
        """(float16[b, 1, 4] x, float16[b, 1, 4] h) => (float16[b, 1, 4] y, float16[b, 1, 4] hn) {
        s = Add(x, h)  hn = Tanh(s)  d = Sub(x, x)  y = Add(hn, d)
        }""",
    )
    assert adoption(source).pairs == {"h": "hn"}
