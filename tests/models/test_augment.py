"""Augmentation and the mixture of sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers import LogMel
from models.speech import data
from models.speech.augment import (
    Augmentation,
    Waveforms,
    change_speed,
    coloured_noise,
    convolve,
    impulse_response,
    quiet_level,
    spec_augment,
    telephone,
    warp_spectrum,
)
from models.speech.cut import cut_words
from models.speech.data import Utterance, encode
from models.speech.mixture import QUIET, UNKNOWN, Example, Mixture, UtteranceSource, collate


def utterance(seconds: float, speaker: str = "a", phones: str = "AA") -> Utterance:
    pcm = (np.random.default_rng(1).standard_normal(int(8000 * seconds)) * 1000).astype(np.int16)
    return Utterance("", speaker, "X", [[phones]], 20, pcm)


def test_convolution_and_speed() -> None:
    rng = np.random.default_rng(0)
    wave, response = rng.standard_normal(500).astype(np.float32), rng.standard_normal(90).astype(np.float32)
    assert np.allclose(convolve(wave, response), np.convolve(wave, response)[:500], atol=1e-4)
    assert abs(len(change_speed(wave, 1.25, 8000)) - 400) <= 1
    assert impulse_response(rng, 8000)[0] == 1.0


def test_a_telephone_takes_away_what_lies_above_4_khz() -> None:
    time = np.arange(16001) / 16000
    low, high = (np.sin(2 * np.pi * hz * time).astype(np.float32) for hz in (1000, 6000))
    heard = telephone(low + high, 16000)
    assert len(heard) == 16001
    assert np.abs(heard - low)[2000:-2000].max() < 0.02


def test_a_narrow_room_lets_nothing_high_through() -> None:
    loud = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    shares = []
    for narrow in (0.0, 1.0):
        options = Augmentation(narrow=narrow, noise=0.0, reverb=0.0, speed=0.0)
        pcm, _ = Waveforms(options, 16000, np.zeros(0, np.int16), np.random.default_rng(1)).room(loud)
        power = np.abs(np.fft.rfft(pcm.astype(np.float64))) ** 2
        shares.append(power[len(power) * 9 // 16 :].sum() / power.sum())
    assert shares[0] > 0.3
    assert shares[1] < 0.01


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
    out, before = waveforms.room(np.sin(np.arange(8000) / 5).astype(np.float32) * 0.3)
    assert before == 800
    assert out.dtype == np.int16
    assert len(out) == 8000 + 800 + 1600
    assert 30 < np.abs(out.astype(int)).max() <= 32767
    silent, _ = waveforms.room(np.zeros(8000, np.float32))
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
    short = UtteranceSource(
        "short", [utterance(0.3, s, p) for s, p in (("a", "AA"), ("b", "B"))], lambda p: 1.0, joined=(2, 3)
    )
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
        symbols, lengths = batch.targets
        assert int(lengths.sum()) == len(symbols)
        assert (lengths >= 2).all()
        assert (lengths <= 3).all()
        for row in symbols.split(lengths.tolist()):
            assert len(set(row.tolist())) == 1, "speakers were mixed"
        assert torch.equal(batch.phones.symbols, symbols)


def test_collating_pads_with_zeros_behind() -> None:
    frames = np.array([5, 6, 7], np.int8)
    short = Example(np.ones(300, np.int16), [1], [4], frames)
    long = Example(np.ones(700, np.int16), [2, 3], [], np.zeros(7, np.int8))
    batch = collate([short, long], 320, 80)
    assert batch.pcm.shape == (2, 960)
    assert batch.pcm.sum() == 1000
    assert not batch.pcm[0, 300:].any()
    assert batch.targets.symbols.tolist() == [1, 2, 3]
    assert batch.phones.lengths.tolist() == [1, 0]
    assert batch.frames[0].tolist() == [5, 6, 7, *[UNKNOWN] * 9]


def tone(phones: str, speaker: str = "a") -> Utterance:
    """Each phone a pitch of its own for 100 ms, between 50 ms of quiet: what a label says can be heard."""
    spelt = phones.split()
    time = np.arange(800) / 8000
    sounds = [np.sin(2 * np.pi * 200 * encode([phone])[0] * time) * 8000 for phone in spelt]
    pcm = np.concatenate([np.zeros(400), *sounds, np.zeros(400)]).astype(np.int16)
    segments = [[5 + 10 * i, 15 + 10 * i] for i in range(len(spelt))]
    return Utterance("", speaker, "X", [spelt], 20, pcm, segments)


@pytest.mark.parametrize("seed", range(8))
def test_labels_stay_with_their_sounds_through_speed_pauses_and_joining(seed: int) -> None:
    options = Augmentation(speeds=(0.8, 1.25), speed=1.0, noise=0.0, reverb=0.0)
    source = UtteranceSource("tones", [tone("AA AE"), tone("AH AO AW")], lambda p: 1.0, joined=(2, 3), gaps=(0.1, 0.3))
    mixture = Mixture(
        [source], options, np.zeros(0, np.int16), sample_rate=8000, hop=320, seconds=4.0, batches=1,
        progress=lambda: 0.0, limit=lambda p: 9.0, seed=seed,
    )  # fmt: skip
    example = mixture.example(source)
    assert len(example.frames) == len(example.pcm) // 80
    runs = [int(k) for i, k in enumerate(example.frames) if k and (i == 0 or k != example.frames[i - 1])]
    assert runs == example.phones
    for phone in set(runs):
        inside = np.flatnonzero(example.frames == phone)
        middle = example.pcm[80 * inside[2] : 80 * inside[-2]].astype(float)
        spectrum = np.abs(np.fft.rfft(middle[:320] * np.hanning(320), 1600))
        assert 0.75 < spectrum.argmax() * 5 / (200 * phone) < 1.3, "another sound lies under this label"
    silent = np.flatnonzero(example.frames == QUIET)
    assert np.abs(example.pcm[80 * silent[1] : 80 * silent[1] + 80].astype(int)).max() < 2000


def test_a_recording_without_times_has_unknown_frames() -> None:
    source = UtteranceSource("both", [tone("AA AE"), utterance(0.3, "a")], lambda p: 1.0, joined=(4, 4))
    mixture = Mixture(
        [source], Augmentation(before=(0.2, 0.2)), np.zeros(0, np.int16), sample_rate=8000, hop=320, seconds=4.0,
        batches=1, progress=lambda: 0.0, limit=lambda p: 9.0, seed=1,
    )  # fmt: skip
    frames = np.concatenate([mixture.example(source).frames for _ in range(6)])
    assert {QUIET, UNKNOWN, *encode(["AA", "AE"])} == set(frames.tolist())


def test_words_are_cut_out_with_their_segments() -> None:
    whole = Utterance("u", "a", "ONE SEA TWO", [["W", "AH"], ["S"], ["T", "UW"]], 8, tone("W AH S T UW").pcm)
    whole.segments = [[5, 15], [15, 25], [25, 35], [35, 45], [45, 55]]
    one, two = cut_words([whole], data.DIGITS, 8000)
    assert (one.text, two.text, one.speaker, one.age) == ("ONE", "TWO", "a", 8)
    assert one.segments == [[3, 13], [13, 23]]
    assert two.segments == [[0, 10], [10, 20]]
    assert len(two.pcm) == 80 * 23
    assert abs(int(two.pcm[0])) <= 1
    assert cut_words([utterance(1.0)], {"X"}, 8000) == []
