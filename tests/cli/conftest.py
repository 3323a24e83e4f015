from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from tests.toys import speech, toy_model

RATE = 8000


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reads loud positive levels as A, loud negative ones as B, at 8 kHz."""
    return toy_model(tmp_path_factory.mktemp("models") / "toy.onnx", sample_rate=RATE)


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``AB``, two seconds of silence, ``BBA``."""
    path = tmp_path_factory.mktemp("audio") / "talk.wav"
    sf.write(path, utterances("AB", "BBA"), RATE)
    return path


def utterances(*texts: str) -> NDArray[np.int16]:
    pause = np.zeros(2 * RATE, np.int16)
    return np.concatenate([part for text in texts for part in (speech(text, RATE), pause)])
