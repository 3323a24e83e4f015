"""Spectra and back, the masking network's laws, and a recipe of a few steps that ends in a judged file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from export.build import build
from models.layers.spectrum import Analysis, Synthesis
from models.shipped.denoiser import denoise, learn, score, si_sdr
from models.shipped.masking import Masking, MaskingConfig
from models.shipped.wiener import wiener
from models.speech.data import Utterance
from models.training import checkpoint
from models.training.budget import Budget
from streamer.engine.model import Model
from streamer.tasks import create
from tests.models.laws import assert_close, check_state, chunked

pytestmark = pytest.mark.long

SMALL = MaskingConfig(size=32, hidden=6, layers=1, low=7)


@pytest.mark.parametrize("size", [8, 16, 64, 512])
def test_spectra_are_fourier_s_and_synthesis_only_delays(size: int) -> None:
    analysis, synthesis = Analysis(size), Synthesis(size)
    n = torch.arange(8 * size)
    x = torch.stack([torch.sin(0.3 * n), torch.cos(0.1 * n * n / size)])
    spectrum, _ = analysis(x, analysis.initial_state(2))
    frames = torch.cat([torch.zeros(2, size // 2), x], 1).unfold(1, size, size // 2)
    want = torch.fft.rfft(frames * torch.sin(torch.pi * torch.arange(size) / size))[..., :-1]
    assert_close(spectrum[:, :, 0], want.real)
    assert_close(spectrum[:, :, 1], want.imag)
    whole = torch.fft.irfft(torch.nn.functional.pad(want, (0, 1)), size) * torch.sin(
        torch.pi * torch.arange(size) / size
    )
    got, _ = synthesis(spectrum, synthesis.initial_state(2))
    half = size // 2
    added = whole[:, 1:, :half] + whole[:, :-1, half:]
    assert_close(got[:, half:], added.flatten(1))
    if size == 512:  # the bin that is left out holds next to nothing of these
        assert float((got[0, 2 * half :] - x[0, half:-half]).abs().max()) < 1e-3


@pytest.mark.parametrize("size", [6, 7, 10])
def test_a_window_that_does_not_fit_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Analysis(size)


def test_the_network_in_any_chunks_and_company() -> None:
    torch.manual_seed(1)
    model = Masking(SMALL).eval()
    torch.nn.init.normal_(model.late.weight, std=0.3)
    pcm = (torch.randn(2, 16 * 24) * 3000).to(torch.int16)
    model.normalise(pcm)
    whole = model(pcm, model.initial_state(2))[0]["audio"]
    state, parts = model.initial_state(2), []
    for piece in pcm.split([16, 16 * 5, 16 * 2, 16 * 16], dim=1):
        output, state = model(piece, state)
        parts.append(output["audio"])
    assert_close(torch.cat(parts, 1), whole)
    alone = model(pcm[:1], model.initial_state(1))[0]["audio"]
    assert_close(alone, whole[:1], 1e-5)
    for layer, x in ((Analysis(32), torch.randn(2, 64)), (Synthesis(32), torch.randn(2, 4, 2, 16))):
        check_state(layer, x)
        got, _ = chunked(layer, x, [32, 32] if x.ndim == 2 else [1, 3])
        assert_close(got, layer(x, layer.initial_state(2))[0])


def speech(seed: int) -> Utterance:
    rng = np.random.default_rng(seed)
    time = np.arange(32000) / 16000
    wave = np.sin(2 * np.pi * rng.uniform(100, 300) * time) * (np.sin(2 * np.pi * 1.5 * time) > 0)
    return Utterance(str(seed), str(seed % 2), "", [], 20, (8000 * wave).astype(np.int16))


@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_a_few_steps_end_in_a_judged_file(tmp_path: Path) -> None:
    everybody = [speech(seed) for seed in range(4)]
    noise = np.random.default_rng(9).standard_normal(32000).astype(np.float32) * 0.1
    best = learn(everybody, everybody, noise, tmp_path, Budget(steps=2, average=0.5))
    model, info = checkpoint.load(best)
    found = score(model, everybody, noise, every=3)
    assert {"SI-SDR gain at 5 dB", "SI-SDR gain at 5 dB, Wiener filter"} <= set(found)
    assert build(model, info, tmp_path / "denoiser.onnx", max_batch=4, long_chunks=30).ok
    manifest = Model.load(tmp_path / "denoiser.onnx").manifest
    assert create(manifest).delay == model.latency
    pcm = everybody[0].pcm[:10001]
    assert denoise(model, pcm).shape == pcm.shape


def test_si_sdr_does_not_know_loudness_and_wiener_lowers_a_hiss() -> None:
    rng = np.random.default_rng(1)
    clean = speech(2).pcm.astype(np.float64)
    noisy = clean + 2000 * rng.standard_normal(len(clean))
    assert si_sdr(3 * noisy, clean) == pytest.approx(si_sdr(noisy, clean))
    assert si_sdr(2 * clean, clean) > 100
    hiss = (2000 * rng.standard_normal(64000)).astype(np.int16)
    assert wiener(hiss)[32000:].std() < 0.3 * hiss.std() / 32768
