"""Input that is no good: each kind has its message, exit code 2, and does not stop the other files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.cli.command import one_line, streamer
from tests.cli.conftest import RATE, utterances


def _truncated(path: Path) -> None:
    sf.write(path, utterances("AB"), RATE)
    path.write_bytes(path.read_bytes()[:-8001])


def _header_only(path: Path) -> None:
    sf.write(path, utterances("AB"), RATE)
    path.write_bytes(path.read_bytes()[:20])


def _no_samples(path: Path) -> None:
    sf.write(path, np.zeros(0, np.int16), RATE)


def _nan(path: Path) -> None:
    pcm = utterances("AB").astype(np.float32) / 32768
    pcm[4000] = np.nan
    sf.write(path, pcm, RATE, subtype="FLOAT")


def _truncated_flac(path: Path) -> None:
    sf.write(path, np.random.default_rng(1).integers(-9000, 9000, 5 * RATE).astype(np.int16), RATE, format="FLAC")
    path.write_bytes(path.read_bytes()[:-20000])


def _low_rate(path: Path) -> None:
    sf.write(path, utterances("AB")[::2], RATE // 2)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated.wav": (_truncated, "is truncated: 8001 bytes are missing"),
    "header.wav": (_header_only, "is cut off in its header"),
    "empty.wav": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "silent.wav": (_no_samples, "holds no samples"),
    "nan.wav": (_nan, "NaN or infinity), the first at 0.500 s"),
    "short.flac": (_truncated_flac, "short.flac: "),
    "text.wav": (lambda path: path.write_text("This is text, where audio belongs.\n" * 50), "is a text, not sound"),
    "text.mp3": (lambda path: path.write_text("This is text, where audio belongs.\n" * 50), "is a text, not sound"),
    "samples.raw": (lambda path: path.write_bytes(utterances("AB").tobytes()), "has no header; raw PCM goes in like"),
    "folder.wav": (lambda path: path.mkdir(), "is a folder"),
    "missing.wav": (lambda path: None, "no such file"),
    "slow.wav": (_low_rate, "4000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, toy: Path, tmp_path: Path) -> None:
    make, message = BAD[name]
    make(tmp_path / name)
    done = streamer("transcribe", "--model", toy, name, cwd=tmp_path)
    line = one_line(done.stderr)
    assert line.startswith("streamer: ")
    assert name in line
    assert message in line
    assert done.returncode == 2


def test_bad_files_do_not_stop_the_good_ones(toy: Path, recording: Path, tmp_path: Path) -> None:
    for name, (make, _) in BAD.items():
        make(tmp_path / name)
    done = streamer("transcribe", "--model", toy, *BAD, recording, cwd=tmp_path)
    assert [line for line in done.stdout.decode().splitlines() if line.startswith(f"{recording}: ")] == [
        f"{recording}: AB",
        f"{recording}: BBA",
    ]
    assert sorted(done.stderr.decode().splitlines()) == sorted(set(done.stderr.decode().splitlines()))
    *said, summary = done.stderr.decode().splitlines()
    assert len(said) == len(BAD)
    assert summary.startswith(f"streamer: 1 of {len(BAD) + 1} inputs were read, {len(BAD)} not, or not whole: ")
    assert done.returncode == 2


def test_what_a_truncated_file_holds_is_still_transcribed(toy: Path, tmp_path: Path) -> None:
    _truncated(tmp_path / "cut.wav")
    assert streamer("transcribe", "--model", toy, tmp_path / "cut.wav").stdout == b"AB\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input is empty (0 bytes)"),
        (utterances("AB").tobytes() + b"x", "no whole number of 16-bit samples"),
        (b"RIFF" + bytes(100), "is a RIFF file but not a WAV, not sound"),
    ],
)
def test_bad_standard_input(data: bytes, message: str, toy: Path) -> None:
    done = streamer("transcribe", "-", "--rate", str(RATE), "--model", toy, stdin=data)
    assert message in one_line(done.stderr)
    assert done.returncode == 2


def test_a_foreign_model_is_refused(recording: Path, tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(b"no model at all")
    done = streamer("transcribe", "--model", tmp_path / "foreign.onnx", recording)
    assert "foreign.onnx" in one_line(done.stderr)
    assert done.returncode == 2
