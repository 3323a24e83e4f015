"""The resampler against soxr in one piece, and its indifference to cuts and to sleep."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streamer.streams.resampler import Resampler

RATES = [
    (48000, 16000),
    (44100, 16000),
    (22050, 16000),
    (32000, 16000),
    (16000, 8000),
    (44100, 8000),
    (96000, 16000),
    (8000, 16000),
]


def speechlike(rate: int, seconds: float, seed: int = 0) -> NDArray[np.int16]:
    """Chirps and noise below 3.4 kHz, with a loud and a soft half."""
    rng = np.random.default_rng(seed)
    n = int(rate * seconds)
    t = np.arange(n) / rate
    sound = np.sin(2 * np.pi * (200 * t + 900 * t**2)) + 0.5 * np.sin(2 * np.pi * 3100 * t)
    noise = rng.normal(size=n // (rate // 4000) + 1)
    sound += 0.3 * np.interp(np.arange(n), np.arange(len(noise)) * (rate // 4000), noise)
    return (sound / np.abs(sound).max() * np.where(t < seconds / 2, 28000, 3000)).astype(np.int16)


def run(pcm: NDArray[np.int16], rates: tuple[int, int], cuts: list[int], sleep: bool = False) -> NDArray[np.int16]:
    resampler, out = Resampler(*rates, min(rates)), []
    edges = [0, *sorted(cut % (len(pcm) + 1) for cut in cuts), len(pcm)]
    for i in range(len(edges) - 1):
        out.append(resampler.push(pcm[edges[i] : edges[i + 1]]))
        if sleep:
            saved, resampler = resampler.save(), Resampler(*rates, min(rates))
            resampler.load(saved)
            assert resampler.save() == saved
    return np.concatenate([*out, resampler.finish()])


@pytest.mark.parametrize("rates", RATES)
def test_close_to_soxr_in_one_piece(rates: tuple[int, int]) -> None:
    pcm = speechlike(rates[0], 1.0)
    ours = run(pcm, rates, []).astype(np.float64)
    whole = soxr.resample(pcm.astype(np.float64), *rates, quality="HQ")[: len(ours)]
    error = ours[: len(whole)] - whole
    assert 10 * math.log10((whole**2).sum() / (error**2).sum()) > 70


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("n", [0, 1, 7, 441, 882, 960, 961, 5000])
def test_length_is_that_of_the_input(rates: tuple[int, int], n: int) -> None:
    assert len(run(speechlike(rates[0], 1.0)[:n], rates, [])) == math.ceil(n * rates[1] / rates[0])


@given(
    rates=st.sampled_from([*RATES, (16000, 16000), (11025, 8000)]),
    n=st.integers(0, 9000),
    cuts=st.lists(st.integers(0, 9000), max_size=12),
    sleep=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_cuts_and_sleep_change_no_sample(rates: tuple[int, int], n: int, cuts: list[int], sleep: bool) -> None:
    pcm = speechlike(rates[0], 0.6)[:n]
    np.testing.assert_array_equal(run(pcm, rates, cuts, sleep), run(pcm, rates, []))


def test_loud_sound_is_clipped_not_wrapped() -> None:
    square = np.where(np.arange(4800) // 240 % 2, 32767, -32768).astype(np.int16)
    out = run(square, (48000, 16000), [])
    assert set(np.sign(out[100:1500:40].astype(int))) == {-1, 1}
    assert (np.abs(np.diff(out.astype(int)))[::80] <= 65535).all()
    settled = out.reshape(-1, 80)[:, 30:50].astype(int)  # the middle of every half wave
    assert (np.abs(np.abs(settled) - 32767) < 1500).all()


def test_equal_rates_change_nothing() -> None:
    pcm = speechlike(16000, 0.1)
    np.testing.assert_array_equal(Resampler(16000, 16000).push(pcm), pcm)


def test_memory_stays_small() -> None:
    resampler = Resampler(44100, 16000)
    pcm = speechlike(44100, 1.0)
    sizes = []
    for begin in range(0, 44100, 100):
        resampler.push(pcm[begin : begin + 100])
        sizes.append(len(resampler.save()))
    assert max(sizes) < 2 * 44100 * 0.045 + 300


@pytest.mark.parametrize(
    ("rate", "message"), [(8000, "record at 16000 Hz"), (0, "record"), (-5, "record"), (400_000, "192000")]
)
def test_rates_that_cannot_be_served_are_refused(rate: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Resampler(rate, 16000)


def test_a_lower_rate_is_served_where_the_model_says_so() -> None:
    with pytest.raises(ValueError, match="record at 8000 Hz"):
        Resampler(6000, 16000, lowest=8000)
    assert Resampler(8000, 16000, lowest=8000).rate_out == 16000


def test_memory_of_other_rates_is_refused() -> None:
    with pytest.raises(ValueError, match="from 44100 to 16000"):
        Resampler(44100, 16000).load(Resampler(48000, 16000).save())
    with pytest.raises(ValueError, match="not a saved"):
        Resampler(44100, 16000).load(b"junk")
