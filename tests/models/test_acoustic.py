"""Both acoustic models from PCM to log-probabilities: laws, shapes, checkpoints, truncated back-propagation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import models
from models.layers import inner
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.ctc import encode_truncated
from models.training import checkpoint, mix
from tests.models.laws import assert_close, check_company, check_state, chunked, settle


def build(family: str) -> Acoustic:
    torch.manual_seed(1)
    strides = (2, 2) if family == "wavenet" else (2, 3)
    config = AcousticConfig(
        family, 8000, 7, bands=12, front=8, strides=strides, channels=8, skip=6, dilations=(1, 2), hidden=10, layers=2
    )
    model = Acoustic(config)
    settle(model)
    return model


def noise(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-20000, 20000, (batch, samples), dtype=torch.int16, generator=generator)


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
@given(steps=st.lists(st.integers(1, 7), min_size=1, max_size=6))
@settings(max_examples=15, deadline=None)
def test_any_split_gives_the_output_of_the_whole(family: str, steps: list[int]) -> None:
    model = build(family)
    pcm = noise(2, sum(steps) * model.hop)
    pieces, _ = chunked(model, pcm, [n * model.hop for n in steps])
    expected = whole(model, pcm)
    assert expected.shape == (2, sum(steps), 7)
    assert torch.allclose(expected.exp().sum(2), torch.ones(2, sum(steps)), atol=1e-5)
    assert_close(pieces, expected)


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
def test_state_and_company(family: str) -> None:
    model = build(family)
    check_state(model, noise(3, 4 * model.hop))
    check_company(model, noise(2, 9 * model.hop), lambda row: torch.full_like(row, -32768))
    # a neighbour whose memory is spoilt
    pcm, state = noise(2, 5 * model.hop), model.initial_state(2)
    for value in state.values():
        value[1] = float("nan")
    with torch.no_grad():
        y, _ = model(pcm, state)
    assert_close(y[:1], whole(model, pcm[:1]), 1e-5)


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
def test_later_samples_change_nothing_earlier(family: str) -> None:
    model = build(family)
    pcm = noise(1, 8 * model.hop)
    other = pcm.clone()
    other[:, 5 * model.hop :] = 0
    assert torch.equal(whole(model, pcm)[:, :5], whole(model, other)[:, :5])


def test_the_wavenet_declares_its_context() -> None:
    model = build("wavenet")
    features = torch.randn(1, 40 * model.encoder.stride, 12, requires_grad=True)
    y, _ = model.encode(features, inner(model.initial_state(1), "encoder"))
    y[:, -1].square().sum().backward()
    assert features.grad is not None
    reached = features.grad.abs().sum((0, 2)).nonzero().flatten()
    assert features.shape[1] - int(reached.min()) == model.context
    assert build("lstm").context is None


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
def test_truncation_changes_the_gradient_but_not_the_output(family: str) -> None:
    model = build(family)
    features = torch.randn(2, 24, 12)
    state = inner(model.initial_state(2), "encoder")
    once, _ = encode_truncated(model, features, state, 0)  # what the head gets: [B, T, width]
    assert once.shape[2] == model.width
    cut, middle = encode_truncated(model, features, state, 12)
    assert_close(cut, once)
    assert (middle is None) == (family == "wavenet")
    cut[:, 1].sum().backward()  # the second piece's gradient must not need the first


@pytest.mark.parametrize("family", ["wavenet", "lstm"])
def test_a_checkpoint_comes_back_the_same(family: str, tmp_path: Path) -> None:
    model = build(family)
    checkpoint.save(tmp_path / "a.pt", model, {"name": "a", "tokens": ["<blank>"]})
    again, info = models.load(tmp_path / "a.pt")
    pcm = noise(1, 6 * model.hop)
    assert info["name"] == "a"
    assert torch.equal(whole(again, pcm), whole(model, pcm))
    fresh = Acoustic(model.config)
    assert checkpoint.warm_start(fresh, tmp_path / "a.pt") == len(model.state_dict())
    assert torch.equal(whole(fresh.eval(), pcm), whole(model, pcm))


def test_the_mean_of_two_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = build("wavenet"), build("wavenet")
    with torch.no_grad():
        for weight in second.parameters():
            weight.add_(torch.randn_like(weight))
    for name, model in (("first", first), ("second", second), ("other", build("lstm"))):
        checkpoint.save(tmp_path / f"{name}.pt", model, {"name": name})
    files = [str(tmp_path / f"{name}.pt") for name in ("first", "second")]
    mix.main([*files, "--share", "0.25", "-o", str(tmp_path / "mixed.pt")])
    mixed, info = models.load(tmp_path / "mixed.pt")
    assert info["name"] == "second"
    for (_, got), a, b in zip(mixed.named_parameters(), first.parameters(), second.parameters(), strict=True):
        assert_close(got, 0.75 * a + 0.25 * b, 1e-6)
    with pytest.raises(SystemExit):
        mix.main([files[0], str(tmp_path / "other.pt"), "-o", str(tmp_path / "none.pt")])
    assert "not two checkpoints of one model" in capsys.readouterr().err
    assert not (tmp_path / "none.pt").exists()


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": 1}, tmp_path / "b.pt")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        models.load(tmp_path / "b.pt")


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="family 'transformer'"):
        Acoustic(AcousticConfig("transformer", 8000, 5))
