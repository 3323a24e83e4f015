"""The main job of scripts/run, with a toy in the place of the shipped models; and that every script parses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.cli.command import ROOT, environment
from tests.toys import speech, toy_model

SCRIPTS = [
    ".ci/run",
    *(f"scripts/{name}" for name in ("run", "test", "check", "make-sample", "make-sensor", "setup.sh")),
]


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_parse(name: str) -> None:
    subprocess.run(["bash", "-n", ROOT / name], check=True, timeout=10)


@pytest.mark.parametrize(("expected", "code"), [("AB\nBBA\n", 0), pytest.param("AB\nBBB\n", 1, marks=pytest.mark.long)])
def test_the_main_job(expected: str, code: int, tmp_path: Path) -> None:
    toy = toy_model(tmp_path / "toy.onnx")
    quiet = np.zeros(16000, np.int16)
    sf.write(tmp_path / "talk.flac", np.concatenate([speech("AB"), quiet, speech("BBA"), quiet]), 8000)
    (tmp_path / "talk.txt").write_text(expected, "utf-8")
    command = [sys.executable, ROOT / "scripts" / "run.py", "--model", toy, "--sample", tmp_path / "talk.flac"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    assert "A ...\n" in done.stdout, "the transcript is shown as it grows"
    assert "/metrics" in done.stdout
    assert "daemon stopped by SIGTERM, exit code 0" in done.stdout
    assert ("all 2 words are right" in done.stdout) == (code == 0)
    assert ("humidity" in done.stdout) == (code == 0), "sensors are forecast"
    assert ("expected: AB BBB" in done.stderr) == (code == 1)


def test_the_sample_is_what_its_text_says() -> None:
    """Connected digits, short enough to listen to, small enough to commit."""
    digits = "zero one two three four five six seven eight nine".split()
    words = (ROOT / "samples" / "digits.txt").read_text("utf-8").split()
    assert set(words) == set(digits)
    path = ROOT / "samples" / "digits.flac"
    info = sf.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
    assert 20 <= info.duration <= 25
    assert path.stat().st_size < 300_000
