"""Recordings: files, pipes, standard input."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile as sf

from tests.cli.conftest import RATE, utterances
from tests.inputs.cases import Case, hold, run

ORDER = 1
ABOUT = {
    "Recordings": "WAV (PCM of 8 to 64 bit, float, A-law, mu-law, ADPCM), FLAC, Ogg, MP3, AIFF, AU, CAF.",
}


def _missing(folder: Path) -> None:
    """There is no such file."""


def _talk(folder: Path) -> None:
    sf.write(folder / "talk.wav", utterances("AB"), RATE)


CASES = (
    Case("WAV, 16 bit", "Recordings", "streamer transcribe talk.wav", "read", _talk, gives="AB"),
    Case(
        "no such file",
        "Recordings",
        "streamer transcribe talk.wav",
        "refused",
        exit=2,
        says="streamer: talk.wav: no such file",
        gives="",
    ),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, toy: Path, tmp_path: Path) -> None:
    hold(case, run(case, tmp_path, {"transcribe": f"--model {toy}"}))
