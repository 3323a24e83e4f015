"""Recordings as files in memory."""

from __future__ import annotations

import io

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from tests.toys import speech

RATE = 8000
SAID = "AB  AAB" + " " * 16 + "BBA"


def recording(
    pcm: NDArray[np.int16] | None = None, rate: int = RATE, form: str = "WAV", name: str = "a.wav"
) -> io.BytesIO:
    """As the OpenAI client takes it: a file with a name."""
    file = io.BytesIO()
    sf.write(file, speech(SAID) if pcm is None else pcm, rate, format=form, subtype=None if form != "OGG" else "OPUS")
    file.seek(0)
    file.name = name
    return file
