"""A grown model hears what the small one heard."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from models.shipped.english import FAMILIES
from models.speech.acoustic import Acoustic, AcousticConfig, whole
from models.speech.data import Pcm, read_audio
from models.speech.grow import grow
from models.speech.reread import measure_norms, reread
from streamer.engine.catalogue import resolve
from streamer.engine.model import Model
from streamer.engine.stepper import Stepper

SMALL = AcousticConfig(
    "lstm", 8000, 12, bands=16, front=12, channels=20, dilations=(1, 2), hidden=24, layers=1, dropout=0.0
)
LARGE = dataclasses.replace(SMALL, channels=28, dilations=(1, 2, 1), hidden=32, layers=2)


def sound(seconds: float, rate: int = 8000) -> Pcm:
    wave = np.random.default_rng(0).standard_normal(int(seconds * rate)) * 2000
    return (wave * (1 + np.sin(np.arange(len(wave)) / 700))).astype(np.int16)


def trained() -> Acoustic:
    """A model whose batch norms have seen something."""
    torch.manual_seed(0)
    model = Acoustic(SMALL).train()
    for _ in range(30):
        whole_training(model)
    return model.eval()


def whole_training(model: Acoustic) -> None:
    pcm = torch.from_numpy(sound(1.0)[: 8000 // model.hop * model.hop])[None]
    model(pcm, model.initial_state(1))


def test_new_channels_layers_and_units_change_little() -> None:
    small = trained()
    big = grow(small, LARGE)
    assert sum(p.numel() for p in big.parameters()) > 1.5 * sum(p.numel() for p in small.parameters())
    pcm = torch.from_numpy(sound(4.0))[None]
    before, after = whole(small, pcm).exp(), whole(big, pcm).exp()
    assert (before - after).abs().max() < 0.05
    torch.manual_seed(1)
    other = whole(Acoustic(LARGE).eval(), pcm).exp()
    assert (before - other).abs().max() > 0.1  # which a model that has not grown out of it is far from


@pytest.mark.parametrize(
    "change", [{"kernel": 5}, {"dilations": (2, 1)}, {"layers": 0}, {"hidden": 28}, {"family": "wavenet"}]
)
def test_what_can_not_grow_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"of the family lstm|smaller one's layers|must differ"):
        grow(Acoustic(SMALL), dataclasses.replace(LARGE, **change))  # type: ignore[arg-type]


def test_measured_norms_compute_the_same() -> None:
    model = trained()
    pcm = torch.from_numpy(sound(3.0))[None]
    before = whole(model, pcm)
    norm = model.encoder.layers["gated"].norm.norm
    statistics = norm.running_mean.clone()
    measure_norms(model, [sound(2.0)])
    torch.testing.assert_close(whole(model, pcm), before, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(norm.running_mean, statistics)


SAMPLE = Path(__file__).parents[2] / "samples" / "english.opus"


def test_weights_come_back_out_of_a_file_in_int8() -> None:
    """All but the rounding of what flows through it: in probabilities."""
    path = resolve("english")
    file, model = Model.load(path), reread(path, FAMILIES["attention"])
    size = file.manifest.input.chunk_shape[0]
    pcm = read_audio(SAMPLE, 16000)[: 24 * size]
    stepper = Stepper(file)
    rows = [stepper.step(chunk[None])[file.manifest.outputs[0].name][0] for chunk in pcm.reshape(-1, size)]
    theirs, mine = np.exp(np.concatenate(rows)), np.exp(whole(model, torch.from_numpy(pcm)[None])[0].numpy())
    assert np.abs(mine - theirs).max() < 0.05
    assert np.abs(mine - theirs).mean() < 0.002
    assert np.abs(theirs[:-1] - theirs[1:]).max() > 0.5  # it is no constant
