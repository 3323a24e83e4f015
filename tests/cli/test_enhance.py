"""`streamer enhance`: from file to file, through pipes, by a daemon; the shipped denoiser; errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from streamer.engine.catalogue import find_models
from tests.cli.command import ROOT, one_line, streamer
from tests.cli.serving import serving
from tests.enhancers import toy_enhancer
from tests.toys import samples, toy_model

RATE = 8000


@pytest.fixture(scope="module")
def turner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_enhancer(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "sound.wav"
    sf.write(path, samples(1, 3 * RATE + 5), RATE)
    return path


@pytest.mark.parametrize("name", ["out.wav", "out.flac"])
def test_a_file_comes_out_as_long_as_it_went_in_and_nothing_moved(
    turner: Path, sound: Path, tmp_path: Path, name: str
) -> None:
    done = streamer("enhance", sound, "-o", tmp_path / name, "--model", turner)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", 0)
    pcm, rate = sf.read(tmp_path / name, dtype="int16")
    assert rate == RATE
    assert np.array_equal(pcm, -samples(1, 3 * RATE + 5))


def test_another_rate_comes_back_at_its_own(turner: Path, tmp_path: Path) -> None:
    time = np.arange(12345) / 44100
    wave = 0.4 * np.sin(2 * np.pi * 440 * time)
    sf.write(tmp_path / "in.wav", wave, 44100)
    done = streamer("enhance", tmp_path / "in.wav", "-o", tmp_path / "out.wav", "--model", turner)
    assert (done.stderr, done.returncode) == (b"", 0)
    got, rate = sf.read(tmp_path / "out.wav")
    assert (len(got), rate) == (12345, 44100)
    assert np.abs(got + wave)[1000:-1000].max() < 0.01


@pytest.mark.long
@pytest.mark.parametrize("count", [0, 1, 63, 64, 4000])
def test_pcm_through_a_pipe(turner: Path, count: int) -> None:
    pcm = samples(2, count)
    done = streamer("enhance", "-", "--rate", str(RATE), "--model", turner, stdin=pcm.tobytes())
    assert done.stdout == (-pcm).tobytes()
    assert done.returncode == (0 if count else 2)


@pytest.mark.long
def test_by_a_daemon(turner: Path, sound: Path, tmp_path: Path) -> None:
    with serving(tmp_path, turner) as url:
        done = streamer("enhance", sound, "-o", tmp_path / "out.wav", "--url", url, "--model", "upside-down")
    assert (done.stderr, done.returncode) == (b"", 0)
    assert np.array_equal(sf.read(tmp_path / "out.wav", dtype="int16")[0], -samples(1, 3 * RATE + 5))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "give a file"),
        (["SOUND", "--listen"], "give a file"),
        (["SOUND"], "where to?"),
        (["SOUND", "-o", "x.txt"], "into a file .wav"),
        (["SOUND", "-o", "SOUND"], "the input itself"),
        (["SOUND", "-o", "/no/such/folder/x.wav"], "there is no folder"),
        (["SOUND", "-o", "x.wav", "--seconds", "3"], "--seconds is for --listen"),
        (["missing.wav", "-o", "x.wav"], "no such file"),
    ],
)
def test_bad_usage_is_one_line(turner: Path, sound: Path, tmp_path: Path, arguments: list[str], told: str) -> None:
    words = [str(sound) if word == "SOUND" else word for word in arguments]
    done = streamer("enhance", *words, "--model", turner, cwd=tmp_path)
    assert told in one_line(done.stderr)
    assert (done.stdout, done.returncode) == (b"", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_model_for_something_else(sound: Path, turner: Path, tmp_path: Path) -> None:
    other = toy_model(tmp_path, name="other")
    done = streamer("enhance", sound, "-o", tmp_path / "x.wav", "--model", other)
    assert "streamer transcribe runs it" in one_line(done.stderr)
    assert done.returncode == 2
    assert "streamer enhance runs it" in one_line(streamer("transcribe", sound, "--model", turner).stderr)


@pytest.mark.skipif("denoiser" not in [p.stem for p in find_models()], reason="models/pretrained/denoiser.onnx")
def test_the_shipped_denoiser_takes_a_hiss_from_speech(tmp_path: Path) -> None:
    """The sample in noise that falls off towards high frequencies, 5 dB below it."""
    clean, rate = sf.read(ROOT / "samples" / "digits.flac")
    clean = clean[: 8 * rate]
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(len(clean)))
    noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 100), len(clean))
    noisy = clean + noise * clean.std() / noise.std() / 10 ** (5 / 20)
    noisy, clean = 0.5 * noisy, 0.5 * clean
    sf.write(tmp_path / "in.wav", noisy, rate)
    done = streamer("enhance", tmp_path / "in.wav", "-o", tmp_path / "out.wav")
    assert (done.stderr, done.returncode) == (b"", 0)
    got, _ = sf.read(tmp_path / "out.wav")

    def si_sdr(found: NDArray[np.float64]) -> float:
        target = clean * (found @ clean) / (clean @ clean)
        return float(10 * np.log10((target @ target) / ((found - target) @ (found - target))))

    assert si_sdr(got) > si_sdr(noisy) + 4
