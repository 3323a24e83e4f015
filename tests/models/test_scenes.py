"""Scenes: codecs and microphones that leave speech in its place, and stretches in which nobody speaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers import LogMel, RunningNorm
from models.speech.augment import Augmentation
from models.speech.channel import CODECS, clipped, microphone, stepped
from models.speech.ctc import ctc, drifted, primed
from models.speech.data import Pcm, Utterance
from models.speech.mixture import QUIET, Mixture, UtteranceSource, reshare
from models.speech.scenes import SpeechScenes

RATE = 16000
PLAIN = Augmentation(speed=0.0, noise=0.0, reverb=0.0, before=(0.2, 0.4), after=(0.1, 0.2), gain=(0.0, 0.0))
KITCHEN = (np.random.default_rng(3).standard_normal(2 * RATE) * 300).astype(np.int16)


def speech(seconds: float = 1.5, seed: int = 1) -> np.ndarray:
    """Bursts of band noise, which have a place."""
    rng = np.random.default_rng(seed)
    wave = rng.standard_normal(int(seconds * RATE))
    wave = np.convolve(wave, np.hanning(6), "same") * np.abs(np.sin(np.arange(len(wave)) / 1500)) ** 3
    return (0.2 * wave / wave.std()).astype(np.float32)


def scenes(options: Augmentation = PLAIN, seed: int = 1) -> SpeechScenes:
    return SpeechScenes(options, RATE, KITCHEN, np.random.default_rng(seed))


def utterance(pcm: Pcm, speaker: str = "a") -> Utterance:
    return Utterance("", speaker, "X", [["AA"]], 20, pcm)


def delay(there: np.ndarray, here: np.ndarray) -> int:
    size = 2 * len(here)
    product = np.fft.rfft(there, size) * np.conj(np.fft.rfft(here, size))
    place = int(np.fft.irfft(product, size).argmax())
    return place if place < len(here) else place - size


@pytest.mark.parametrize("name", CODECS)
def test_codecs_change_a_sound_and_leave_it_in_its_place(name: str) -> None:
    wave = speech()
    out = CODECS[name](wave, RATE, np.random.default_rng(1))
    assert len(out) == len(wave)
    assert out.dtype == np.float32
    assert abs(delay(out, wave)) <= RATE // 200  # 5 ms
    assert 0.001 < np.mean((out - wave) ** 2) / np.mean(wave**2) < 0.9


@pytest.mark.parametrize("name", ["narrow", "telephone", "gsm"])
def test_a_telephone_is_narrow(name: str) -> None:
    wave = (0.2 * np.random.default_rng(1).standard_normal(RATE)).astype(np.float32)
    power = np.abs(np.fft.rfft(CODECS[name](wave, RATE, np.random.default_rng(1)))) ** 2
    assert power[len(power) * 9 // 16 :].sum() < 0.02 * power.sum()


def test_microphones_differ() -> None:
    wave = speech()
    spectra = [np.abs(np.fft.rfft(microphone(wave, RATE, np.random.default_rng(seed)))) for seed in range(4)]
    assert all(np.isfinite(spectrum).all() for spectrum in spectra)
    shares = [spectrum[:4000].sum() / spectrum.sum() for spectrum in spectra]
    assert np.ptp(shares) > 0.02


def test_clipping_and_steps() -> None:
    wave = speech()
    for seed in range(6):
        out = clipped(wave, np.random.default_rng(seed))
        assert np.abs(out).max() < np.abs(wave).max()
        assert delay(out, wave) == 0
    out = stepped(wave, np.random.default_rng(2))
    assert out[0] == wave[0]
    assert np.isfinite(out).all()
    assert not np.allclose(out[-100:], wave[-100:])


def test_a_room_says_where_the_speech_lies() -> None:
    wave = speech()
    pcm, before = scenes().room(wave)
    assert 0.2 * RATE <= before <= 0.4 * RATE
    piece = pcm[before : before + len(wave)].astype(float)
    assert np.corrcoef(piece, wave)[0, 1] > 0.999


@pytest.mark.parametrize("part", ["crosstalk", "microphone", "codec", "clip", "step", "noise", "reverb"])
def test_every_part_of_a_scene_is_heard(part: str) -> None:
    from dataclasses import replace

    wave = speech()
    changed = scenes(replace(PLAIN, before=(0.0, 0.0), after=(0.0, 0.0), **{part: 1.0}))
    plain = scenes(replace(PLAIN, before=(0.0, 0.0), after=(0.0, 0.0)))
    changed.neighbour = lambda: speech(seed=9)
    heard, _ = changed.room(wave)
    assert len(heard) == len(wave)
    assert not np.array_equal(heard, plain.room(wave)[0])


def test_nothing_is_of_many_kinds_and_may_be_digital_silence() -> None:
    made = scenes(Augmentation(microphone=0.3, codec=0.3))
    stretches = [made.nothing(2.0) for _ in range(40)]
    assert all(len(pcm) == 2 * RATE and pcm.dtype == np.int16 for pcm in stretches)
    levels = np.array([pcm.astype(float).std() for pcm in stretches])
    assert (levels == 0).any()
    assert (levels > 300).any()
    again = scenes(Augmentation(microphone=0.3, codec=0.3))
    np.testing.assert_array_equal(again.nothing(2.0), stretches[0])


def mixture(sources: list[UtteranceSource], batches: int = 3) -> Mixture:
    return Mixture(
        sources, PLAIN, KITCHEN, sample_rate=RATE, hop=640, seconds=12.0, batches=batches,
        progress=lambda: 0.5, limit=lambda progress: 14.0, hearing=SpeechScenes,
    )  # fmt: skip


def test_who_hears_nothing_learns_to_say_nothing() -> None:
    for batch in mixture([UtteranceSource("nothing", [], lambda progress: 1.0)]):
        assert batch.targets.lengths.sum() == 0
        assert set(batch.frames.unique().tolist()) <= {QUIET, -1}
        logits = torch.zeros(*batch.pcm.shape[:1], batch.pcm.shape[1] // 640, 5, requires_grad=True)
        loss = ctc(logits.log_softmax(2), -(-batch.samples // 640), batch.targets, 1)
        loss.backward()
        assert torch.isfinite(loss)
        assert 0 < loss < 5 * np.log(5)  # about what a symbol costs, however many rows say nothing
        assert (logits.grad[:, 0, 0] < 0).all()  # downhill is more blank
        assert (logits.grad[:, 0, 1:] > 0).all()


def test_a_source_grows_while_somebody_trains() -> None:
    first = [utterance((speech(1.0) * 8000).astype(np.int16))]
    later: list[Utterance] = []
    batches = mixture(
        [UtteranceSource("old", first, lambda p: 0.01), UtteranceSource("new", [], lambda p: 0.99, more=lambda: later)]
    )
    assert all(batch.targets.lengths.sum() == len(batch.targets.lengths) for batch in batches)
    later.append(Utterance("", "b", "X Y Z", [["B"], ["D"], ["G"]], 20, first[0].pcm))
    symbols = torch.cat([batch.targets.lengths for batch in batches])
    assert (symbols == 3).sum() > (symbols == 1).sum()


def test_a_training_that_goes_on_draws_other_examples() -> None:
    def first(progress: float) -> torch.Tensor:
        batches = mixture([UtteranceSource("nothing", [], lambda p: 1.0)], batches=1)
        batches.progress = lambda: progress
        return next(iter(batches)).pcm

    assert torch.equal(first(0.0), first(0.0))
    assert torch.equal(first(0.3), first(0.3))
    assert not torch.equal(first(0.0), first(0.3))


def test_a_drifted_normaliser_is_what_silence_leaves() -> None:
    norm = RunningNorm(4)
    norm.mean.copy_(torch.tensor([1.0, -2.0, 0.0, 3.0]))
    norm.std.copy_(torch.tensor([1.0, 2.0, 0.5, 1.5]))
    quiet = torch.tensor([[-6.0, -7.0, -5.0, -6.5], [2.0, 1.0, 0.0, 0.5]])
    _, heard = norm(quiet[:, None].expand(2, 700, 4), norm.initial_state(2))
    made = drifted(norm, quiet, torch.full((2, 1), 700.0), torch.zeros(2, 1))
    for name, value in heard.items():
        torch.testing.assert_close(made[name], value, rtol=1e-4, atol=1e-4)


def test_a_share_of_the_streams_has_been_running() -> None:
    mel, norm = LogMel(RATE, 8), RunningNorm(8)
    energies = torch.randn(400, 50, 8)
    state = primed(mel, norm, energies, 0.25, np.random.default_rng(1))
    running = state["count"][:, 0] > 0
    assert 0.15 < running.float().mean() < 0.35
    assert (state["mean"][~running] == 0).all()
    assert (state["square"][~running] == 0).all()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in norm.initial_state(400).items()
    }


def test_sources_get_other_shares() -> None:
    def sources() -> list[UtteranceSource]:
        return [
            UtteranceSource("a", [], lambda p: 0.2 + p),
            UtteranceSource("b", [], lambda p: 0.1),
            UtteranceSource("c", [], lambda p: 0.7),
        ]

    made = sources()
    reshare(made, {"c": 0.4})
    assert [source.weight(0.0) for source in made] == pytest.approx([0.4, 0.2, 0.4])
    assert [source.weight(0.1) for source in made] == pytest.approx([0.45, 0.15, 0.4])
    made = sources()
    reshare(made, {})
    assert [source.weight(0.5) for source in made] == pytest.approx([0.7 / 1.5, 0.1 / 1.5, 0.7 / 1.5])
    for wrong in ({"d": 0.1}, {"a": 0.7, "b": 0.4}, {"a": -0.1}):
        with pytest.raises(ValueError, match=r"no source d: there are a, b, c|shares are"):
            reshare(sources(), wrong)
