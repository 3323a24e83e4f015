"""Parallel WaveNet: the flow's equation, what a sample may know, distributions, and a file that keeps the laws."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from export.build import build
from models.training import checkpoint
from models.zoo.generate import parallel_digits
from models.zoo.generate.parallel_wavenet import ParallelConfig, ParallelWaveNet, levels_log_prob
from models.zoo.generate.teaching import info
from models.zoo.generate.wavenet_generator import WaveNetConfig, WaveNetGenerator
from streamer.engine.model import Model
from streamer.streams.generation import Generation

pytestmark = pytest.mark.long

SMALL = ParallelConfig(
    flows=((1, 2, 4), (1, 2)), channels=4, hidden=5, guide=6, vocabulary=16, width=2, labels=3, pace=40
)


def student() -> ParallelWaveNet:
    torch.manual_seed(2)
    model = ParallelWaveNet(SMALL).eval()
    with torch.no_grad():
        for flow in model.flows:
            flow.head.weight.mul_(20)  # it begins as noise that hears nothing
    return model


def given(frames: int) -> tuple[Tensor, Tensor]:
    labels = torch.randint(0, 3, (1, frames // 6 + 1)).repeat_interleave(6, dim=1)[:, :frames]
    return labels, torch.arange(frames)[None] % 6


@torch.no_grad()
def test_a_sample_is_its_own_noise_shifted_and_scaled_by_what_was_before() -> None:
    model, (labels, since) = student(), given(20)
    noise = torch.randn(1, 40)
    sound, middle, scale, _ = model.play(noise, labels, since, model.initial_state(1))
    assert torch.allclose(sound, noise * scale.exp() + middle, atol=1e-5)
    for at in (0, 7, 25, 39):
        other = noise.clone()
        other[:, at:] = 9.0
        _, m, s, _ = model.play(other, labels, since, model.initial_state(1))
        assert torch.equal(m[:, : at + 1], middle[:, : at + 1])
        assert torch.equal(s[:, : at + 1], scale[:, : at + 1])
        if at < 39:
            assert not torch.equal(m[:, at + 1 :], middle[:, at + 1 :])


@torch.no_grad()
def test_what_it_depends_on_has_an_end() -> None:
    model = student()
    labels, since = torch.ones(1, 60, dtype=torch.int64), torch.full((1, 60), 30)
    noise = torch.randn(1, 120)
    other = noise.clone()
    other[:, :2] = 5.0  # one step
    (_, a, _, _), (_, b, _, _) = (model.play(x, labels, since, model.initial_state(1)) for x in (noise, other))
    changed = (a != b)[0].nonzero().flatten() // SMALL.width
    assert int(changed.max()) < (model.receptive_field or 0)
    assert int(changed.max()) > SMALL.flows[0][-1] // SMALL.width


@torch.no_grad()
def test_one_flow_by_hand() -> None:
    """Sample by sample in NumPy, from the layers' weights."""
    model = student()
    flow = model.flows[0]
    noise, guide = torch.randn(1, 12), torch.randn(1, 12, 3 * 2 * SMALL.channels)
    shift, scale, _ = flow(noise, guide, flow.initial_state(1))

    def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
        bias = 0 if layer.bias is None else layer.bias.numpy()
        return layer.weight.numpy() @ x + bias

    inputs: list[list[np.ndarray]] = [[] for _ in flow.dilations]
    for t in range(12):
        before = float(noise[0, t - 1]) if t else 0.0
        x, said = linear(flow.enter, np.array([before, np.tanh(before)])), []
        for i, d in enumerate(flow.dilations):
            inputs[i].append(x)
            past = inputs[i][t - d] if t >= d else np.zeros_like(x)
            told = guide[0, t, 2 * i * SMALL.channels : 2 * (i + 1) * SMALL.channels].numpy()
            content, gate = np.split(linear(flow.taps[i], np.concatenate([past, x])) + told, 2)
            z = np.tanh(content) / (1 + np.exp(-gate))
            said.append(z)
            x = x + linear(flow.mix[i], z)
        want = linear(flow.head, np.maximum(linear(flow.gather, np.concatenate(said)), 0))
        np.testing.assert_allclose([float(shift[0, t]), float(scale[0, t])], want, atol=1e-4)


def test_levels_have_the_shares_of_a_logistic() -> None:
    middle, scale = torch.tensor([[-0.4], [0.0], [0.93], [3.0]]), torch.tensor([[-3.0], [-1.0], [-6.0], [-2.0]])
    share = levels_log_prob(middle, scale, 16, torch.arange(16)).exp()
    assert torch.allclose(share.sum(1), torch.ones(4), atol=1e-5)
    edges = (torch.arange(1, 16) * 2 - 16) / 15.0
    below = torch.sigmoid((edges - middle) / scale.exp())
    want = torch.diff(torch.cat([torch.zeros(4, 1), below, torch.ones(4, 1)], 1), dim=1)
    assert torch.allclose(share, want, atol=1e-5)


def test_the_teacher_between_its_levels() -> None:
    """At a level it is what it is for the token, between two levels it has a slope."""
    torch.manual_seed(3)
    teacher = WaveNetGenerator(WaveNetConfig(vocabulary=16, width=2, labels=3, channels=4, dilations=(1, 2), skip=4))
    tokens, (labels, since) = torch.randint(0, 16, (1, 9, 2)), given(9)
    level = tokens.flatten(1).float().requires_grad_()
    said = teacher.between(level, labels, since)
    assert torch.allclose(said, teacher.teach(tokens, labels, since), atol=1e-6)
    said.sum().backward()
    assert level.grad is not None
    assert (level.grad[:, :-2] != 0).float().mean() > 0.8


def test_the_file_keeps_its_laws_and_seeds_say_the_same_again(tmp_path: Path) -> None:
    model = student()
    options = {
        "kind": "audio", "vocabulary": 16, "sample_rate": 8000, "conditions": {"digit": ["silence", "one", "two"]},
    }  # fmt: skip
    about = info("small", model.columns.limits(), 8, options) | {"licence": "none", "data": "none"}
    path = tmp_path / "small.onnx"
    assert build(model, about, path, max_batch=4, long_chunks=30).ok

    def sound(**request: object) -> bytes:
        run = Generation(Model.load(path), [request])
        return b"".join(event.pcm.tobytes() for _ in range(6) for event in run.step()[0])

    one = sound(seed=3, conditions={"digit": "one"})
    assert sound(seed=3, conditions={"digit": "one"}) == one
    assert sound(seed=4, conditions={"digit": "one"}) != one
    assert sound(seed=3, conditions={"digit": "two"}) != one


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng")
@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_the_recipe(tmp_path: Path) -> None:
    """A few batches: what it leaves can be loaded, and says how far it is from the teacher."""
    torch.manual_seed(4)
    teacher = WaveNetGenerator(WaveNetConfig(channels=4, dilations=(1, 2), skip=4, hidden=6))
    config = ParallelConfig(flows=((1, 2, 4, 8),), channels=6, hidden=6, guide=8)
    best = parallel_digits.train(tmp_path, steps=6, config=config, teacher=teacher, frames=300)
    model, found = checkpoint.load(best)
    assert model.config == config
    assert found["options"]["conditions"]["digit"][:3] == ["silence", "zero", "one"]
    assert "bits per sample from the teacher" in (tmp_path / "scores.json").read_text()


def test_no_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="python -m models zoo spoken-digits"):
        parallel_digits.train(tmp_path)
