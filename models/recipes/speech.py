"""The recipes of the two models that the project ships."""

from __future__ import annotations

from collections.abc import Callable

from models import data, synthetic
from models.acoustic import AcousticConfig
from models.augment import Augmentation
from models.data import TOKENS
from models.mixture import Source
from models.recipes.base import Recipe, dev_speakers, set_normaliser
from models.training import Options

__all__ = ["LEFT_OUT", "digits", "english_small", "set_normaliser"]

#: The speaker of the isolated-digit set that is left out of training, for reporting only.
LEFT_OUT = "jackson"

LICENCE = (
    "speechocean762: free for commercial and non-commercial purposes; kitchen noise: Apache-2.0; "
    "espeak-ng voices: synthetic"
)


def english_small() -> Recipe:
    rate = 16000
    corpus = data.speechocean("train", rate)
    train, dev = data.by_speaker(corpus, dev_speakers(corpus))
    spoken = synthetic.sentences(5000, rate)
    # once the training speakers are known by heart, only other throats, microphones and rooms teach anything new
    strong = Augmentation(
        noise=0.35, snr=(6.0, 35.0), reverb=0.15, frequency_width=8, time_masks=3, time_width=20, warp=0.12, tilt=0.5
    )
    return Recipe(
        name="english-small",
        config=AcousticConfig(
            "lstm",
            rate,
            len(TOKENS),
            strides=(2, 3),
            channels=160,
            kernel=3,
            dilations=(1, 2, 4, 1, 2, 4),
            hidden=256,
            layers=1,
            dropout=0.2,
        ),
        options=Options(minutes=80, rate=2e-3),
        augmentation=strong,
        sources=[
            Source("speechocean", train, lambda p: 1.0, joined=(2, 2), together=0.15),
            Source("espeak", spoken, lambda p: 0.2),
        ],
        noise=data.kitchen(rate),
        dev={
            "dev": dev,
            "adults": [u for u in dev if u.age >= 16],
            "children": [u for u in dev if u.age < 16],
        },
        seconds=40.0,
        batches=250,
        limit=lambda p: 14.0,
        info={
            "data": "speechocean762 train without ten development speakers (2.6 h); espeak-ng phrases",
            "licence": LICENCE,
        },
    )


def digits() -> Recipe:
    rate = 8000
    corpus = data.speechocean("train", rate)
    spelling = sorted({u.speaker for u in corpus if u.is_digits})
    held = sorted({*dev_speakers(corpus, 3, 2), *spelling[2::5]})
    train, dev = data.by_speaker(corpus, held)
    takes = [u for u in data.fsdd(rate) if u.speaker != LEFT_OUT]
    wide = Augmentation(speeds=(0.8, 1.3), speed=0.85, time_width=12, reverb=0.3, noise=0.6, warp=0.15, tilt=0.5)
    return Recipe(
        name="digits",
        config=AcousticConfig(
            "wavenet", rate, len(TOKENS), channels=128, skip=128, kernel=3, dilations=(1, 2, 4, 1, 2, 4, 8)
        ),
        options=Options(minutes=80, rate=3e-3),
        augmentation=wide,
        sources=[
            Source("sentences", [u for u in train if not u.is_digits], _moving(0.3, 0.15)),
            Source("strings", [u for u in train if u.is_digits], _moving(0.2, 0.3), joined=(1, 2)),
            Source("takes", takes, _moving(0.3, 0.35), joined=(1, 7), gaps=(0.0, 0.45)),
            Source("espeak", synthetic.digit_strings(4000, rate), _moving(0.2, 0.2)),
        ],
        noise=data.kitchen(rate),
        dev={
            "digits": [u for u in dev if u.is_digits],
            "sentences": [u for u in dev if not u.is_digits][::3],
        },
        seconds=40.0,
        batches=400,
        limit=lambda p: 10.0,
        info={
            "lexicon": {word.lower(): data.pronounce(word) for word in data.DIGITS},
            "data": "speechocean762 train at 8 kHz without the development speakers, its digit strings repeated; FSDD "
            f"without speaker {LEFT_OUT} joined into strings; espeak-ng digit strings",
            "licence": LICENCE + "; Free Spoken Digit Dataset: CC BY-SA 4.0",
        },
    )


def _moving(early: float, late: float) -> Callable[[float], float]:
    """A weight that moves from one value to the other in the middle of the training."""
    return lambda p: early + (late - early) * min(1.0, max(0.0, (p - 0.3) / 0.4))
