"""Augmentation and the mixture of sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.augment import (
    Augmentation,
    Waveforms,
    change_speed,
    coloured_noise,
    convolve,
    impulse_response,
    quiet_level,
    spec_augment,
    warp_spectrum,
)
from models.data import Utterance
from models.layers import LogMel
from models.mixture import Mixture, Source, collate


def utterance(seconds: float, speaker: str = "a", phones: str = "AA") -> Utterance:
    pcm = (np.random.default_rng(1).standard_normal(int(8000 * seconds)) * 1000).astype(np.int16)
    return Utterance("", speaker, "X", [[phones]], 20, pcm)


def test_convolution_and_speed() -> None:
    rng = np.random.default_rng(0)
    wave, response = rng.standard_normal(500).astype(np.float32), rng.standard_normal(90).astype(np.float32)
    assert np.allclose(convolve(wave, response), np.convolve(wave, response)[:500], atol=1e-4)
    assert abs(len(change_speed(wave, 1.25, 8000)) - 400) <= 1
    assert impulse_response(rng, 8000)[0] == 1.0


def test_coloured_noise_has_unit_power() -> None:
    for seed in range(5):
        noise = coloured_noise(np.random.default_rng(seed), 40000)
        assert len(noise) == 40000
        assert 0.8 < noise.std() < 1.2


def test_quiet_level() -> None:
    wave = np.concatenate([np.full(8000, 0.0), np.sin(np.arange(8000))]).astype(np.float32)
    assert quiet_level(wave, 8000) == 0.0
    assert quiet_level(wave[:3], 8000) == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_a_room_gives_sane_samples(seed: int) -> None:
    options = Augmentation(noise=1.0, reverb=1.0, before=(0.1, 0.1), after=(0.2, 0.2))
    waveforms = Waveforms(options, 8000, np.zeros(0, np.int16), np.random.default_rng(seed))
    out = waveforms.room(np.sin(np.arange(8000) / 5).astype(np.float32) * 0.3)
    assert out.dtype == np.int16
    assert len(out) == 8000 + 800 + 1600
    assert 30 < np.abs(out.astype(int)).max() <= 32767
    silent = waveforms.room(np.zeros(8000, np.float32))
    assert np.abs(silent.astype(int)).max() <= 32767


def test_spec_augment_masks_and_keeps_the_rest() -> None:
    features = torch.ones(3, 100, 20)
    out = spec_augment(features.clone(), Augmentation(), np.random.default_rng(0))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert out.mean() > 0.3


def test_warping_by_nothing_is_nothing_and_by_something_moves_bands() -> None:
    mel = LogMel(8000)
    ramp = torch.arange(40.0).expand(2, 5, 40)
    rng = np.random.default_rng(0)
    assert warp_spectrum(ramp, mel.mels, Augmentation(), rng) is ramp
    assert torch.allclose(warp_spectrum(ramp, mel.mels, Augmentation(warp=1e-9), rng), ramp, atol=1e-3)
    moved = warp_spectrum(ramp, mel.mels, Augmentation(warp=0.2), rng)
    assert (moved - ramp).abs().max() > 0.5
    assert (moved.diff(dim=2) > -1e-4).all()
    tilted = warp_spectrum(ramp, mel.mels, Augmentation(tilt=1.0), rng)
    assert torch.allclose(tilted[:, 0] - ramp[:, 0], tilted[:, 3] - ramp[:, 3], atol=1e-4)


def test_batches_keep_to_their_size_and_join_one_speaker() -> None:
    short = Source("short", [utterance(0.3, s, p) for s, p in (("a", "AA"), ("b", "B"))], lambda p: 1.0, joined=(2, 3))
    mixture = Mixture(
        [short],
        Augmentation(),
        np.zeros(0, np.int16),
        sample_rate=8000,
        hop=320,
        seconds=10.0,
        batches=5,
        progress=lambda: 0.5,
        limit=lambda p: 4.0,
    )
    batches = list(mixture)
    assert len(batches) == len(mixture) == 5
    for batch in batches:
        assert batch.pcm.shape[1] % 320 == 0
        assert batch.pcm.shape[0] * int(batch.samples.max()) <= 10.6 * 8000
        assert int(batch.lengths.sum()) == len(batch.targets)
        assert (batch.lengths >= 2).all()
        assert (batch.lengths <= 3).all()
        for row, length in zip(batch.targets.split(batch.lengths.tolist()), batch.lengths, strict=True):
            assert len(set(row.tolist())) == 1, "speakers were mixed"
            assert len(row) == length


def test_collating_pads_with_zeros_behind() -> None:
    batch = collate([(np.ones(300, np.int16), [1]), (np.ones(700, np.int16), [2, 3])], 320)
    assert batch.pcm.shape == (2, 960)
    assert batch.pcm.sum() == 1000
    assert not batch.pcm[0, 300:].any()
    assert batch.targets.tolist() == [1, 2, 3]
