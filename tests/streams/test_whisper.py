"""Whisper itself as the second recogniser. With weights where ``$STREAMER_WHISPER`` (or ./whisper) has them."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer.engine.model import ModelError
from streamer.metrics import Metrics
from streamer.settings import Settings
from streamer.streams.registry import Registry
from streamer.streams.whisper import Whisper, WhisperError
from tests.cli.command import streamer

WEIGHTS = Path(os.environ.get("STREAMER_WHISPER") or "whisper")
SAMPLE = Path(__file__).resolve().parents[2] / "samples" / "digits.flac"


@pytest.fixture(params=["base", "tiny.en"])
def weights(request: pytest.FixtureRequest) -> Path:
    folder = WEIGHTS / request.param
    if not (folder / "model.bin").is_file():
        pytest.skip(f"no Whisper model {request.param} in {WEIGHTS}: set STREAMER_WHISPER to a folder that has it")
    return folder


def test_it_hears_words_with_their_times(weights: Path) -> None:
    pcm, rate = soundfile.read(SAMPLE, dtype="float32")
    assert rate == Whisper.rate
    heard = Whisper(str(weights)).hear(pcm[: int(1.8 * rate)])
    assert heard.words
    assert all(0 <= word.start <= word.end <= 1.9 and 0 <= word.confidence <= 1 for word in heard.words)
    assert -1 < heard.logp < 0


def test_nothing_is_no_word(weights: Path) -> None:
    quiet = np.zeros(3 * Whisper.rate, np.float32)
    heard = Whisper(str(weights)).hear(quiet)
    assert not heard.words or heard.silence > 0.3


def test_finals_of_the_command_line(weights: Path) -> None:
    done = streamer("transcribe", "--model", "digits", "--revise", weights, "--json", SAMPLE)
    finals = [event for event in map(json.loads, done.stdout.splitlines()) if event["type"] == "final"]
    words = [word for final in finals for word in final["words"]]
    assert sum(final["revised"] for final in finals) >= len(finals) // 2
    assert len(words) >= 10
    assert all(a["end"] <= b["start"] for a, b in pairwise(words))
    subtitles = streamer("transcribe", "--model", "digits", "--revise", weights, "--srt", SAMPLE).stdout.decode()
    assert finals[0]["words"][0]["written"] in subtitles


@pytest.mark.parametrize(
    ("name", "message"),
    [("/nowhere/whisper", "no folder /nowhere/whisper"), ("./here", "is a folder with model.bin")],
)
def test_a_folder_that_is_not_there_is_told_of(name: str, message: str) -> None:
    with pytest.raises(WhisperError, match=message):
        Whisper(name)


def test_a_folder_with_no_model_is_told_of_before_the_daemon_is_ready(tmp_path: Path, toy: Path) -> None:
    registry = Registry(Settings(models=(str(toy),), state_directory=tmp_path, revise=str(tmp_path)), Metrics())
    with pytest.raises(ModelError, match="can't be loaded"):
        registry.load()
    registry.close()


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(WhisperError, match=r"streamer\[revise\]"):
        Whisper("base")
