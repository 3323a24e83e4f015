"""The recipe of a full public corpus in LibriSpeech's layout (Panayotov et al. 2015; OpenSLR 12, CC BY 4.0).

``root/train-clean-100/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt`` beside them, and ``root/dev-clean`` likewise.
Without ``dev-clean``, every twentieth speaker of the training part (at least one) is held out instead.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from models.speech import data
from models.speech.acoustic import AcousticConfig
from models.speech.augment import Augmentation
from models.speech.ctc import CtcOptions
from models.speech.data import TOKENS, Utterance
from models.speech.mixture import UtteranceSource
from models.training.recipe import Recipe


def _part(root: Path, part: str, rate: int) -> list[Utterance]:
    tag = hashlib.sha256(str((root / part).resolve()).encode()).hexdigest()[:12]
    return data.cached(f"librispeech-{part}-{rate}-{tag}", lambda: data.librispeech(root, part, rate))


def librispeech(root: Path, *, small: bool = False) -> Recipe:
    """The recipe for the corpus in ``root``. ``small``: with a model that trains in seconds, for tests. Raises
    ``FileNotFoundError`` if there is no corpus."""
    rate = 16000
    train = _part(root, "train-clean-100", rate)
    if (root / "dev-clean").exists():
        dev = _part(root, "dev-clean", rate)
    else:
        train, dev = data.by_speaker(train, sorted({u.speaker for u in train})[::20])
    config = AcousticConfig("lstm", rate, len(TOKENS), channels=256, dilations=(1, 2, 4, 1, 2, 4), hidden=512, layers=3)
    if small:
        config = AcousticConfig("lstm", rate, len(TOKENS), front=16, channels=16, dilations=(1,), hidden=16, layers=1)
    return Recipe(
        name="librispeech",
        config=config,
        # sentences last up to 16 s: the gradient is truncated every 6 s, the state is not
        options=CtcOptions(minutes=60 * 24, rate=1.5e-3, truncate=600),
        augmentation=Augmentation(speeds=(0.9, 1.1), frequency_masks=2, time_masks=4),
        sources=[UtteranceSource("train-clean-100", train, lambda p: 1.0)],
        noise=np.zeros(0, np.int16),
        dev={"dev": dev[:400]},
        seconds=8.0 if small else 120.0,
        batches=2 if small else 1000,
        limit=lambda p: 6.0 if p < 0.02 else 17.0,
        info={"data": "LibriSpeech train-clean-100, words spelt by CMUdict", "licence": "LibriSpeech: CC BY 4.0"},
    )
