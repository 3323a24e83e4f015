"""The recipes for speech: what data, which model, how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from models import data, synthetic
from models.acoustic import Acoustic, AcousticConfig
from models.augment import Augmentation
from models.data import TOKENS, Pcm, Utterance
from models.mixture import Source
from models.score import phone_error
from models.training import Options


@dataclass
class Recipe:
    """Everything ``python -m models train NAME`` needs."""

    name: str
    config: AcousticConfig
    options: Options
    augmentation: Augmentation
    sources: list[Source]
    noise: Pcm
    dev: dict[str, list[Utterance]]  # the first is the one whose error picks the best checkpoint
    seconds: float = 70.0  # of audio in a batch
    batches: int = 250  # between evaluations
    limit: Callable[[float], float] = field(default=lambda progress: 12.0)
    info: dict[str, Any] = field(default_factory=dict)

    def evaluate(self, model: Acoustic) -> dict[str, float]:
        scores = {name: phone_error(model, utterances) for name, utterances in self.dev.items()}
        return {"error": next(iter(scores.values())), **{f"per_{name}": value for name, value in scores.items()}}

    def description(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "task": "transcribe",
            "family": self.config.family,
            "sample_rate": self.config.sample_rate,
            "hop": self.config.sample_rate // 25,
            "tokens": TOKENS,
            "flush_seconds": 0.4,
            "lexicon": {},
            **self.info,
        }


def set_normaliser(model: Acoustic, utterances: list[Utterance], seed: int = 0) -> None:
    """Mean and standard deviation of the log-mel energies of some recordings become the normaliser's start."""
    rng = np.random.default_rng(seed)
    chosen = [utterances[int(i)] for i in rng.permutation(len(utterances))[:200]]
    mel, norm = model.front.layers["mel"], model.front.layers["norm"]
    with torch.no_grad():
        frames = [mel(torch.from_numpy(_whole_frames(u.pcm, model.hop)), mel.initial_state(1))[0][0] for u in chosen]
        every = torch.cat(frames)
        norm.mean.copy_(every.mean(0))
        norm.std.copy_(every.std(0))


def _whole_frames(pcm: Pcm, hop: int) -> Pcm:
    return np.array(pcm[: max(hop, len(pcm) // hop * hop)])[None]


#: Speakers of the training part held out for development: adults and children, every one with about twenty sentences.
LICENCE = (
    "speechocean762: free for commercial and non-commercial purposes; FSDD: CC BY-SA 4.0; kitchen noise: Apache-2.0; "
    "espeak-ng voices: synthetic"
)


def dev_speakers(utterances: list[Utterance], adults: int = 5, children: int = 5) -> list[str]:
    """Evenly spread over the sorted speakers of each age group."""
    ages = {u.speaker: u.age for u in utterances}
    out = []
    for count, group in (
        (adults, [s for s in sorted(ages) if ages[s] >= 16]),
        (children, [s for s in sorted(ages) if ages[s] < 16]),
    ):
        out += [group[int((i + 0.5) * len(group) / count)] for i in range(count)]
    return out


def english_small() -> Recipe:
    rate = 16000
    corpus = data.speechocean("train", rate)
    train, dev = data.by_speaker(corpus, dev_speakers(corpus))
    spoken = synthetic.sentences(5000, rate)
    return Recipe(
        name="english-small",
        config=AcousticConfig(
            "lstm",
            rate,
            len(TOKENS),
            channels=160,
            kernel=3,
            dilations=(1, 2, 4, 1, 2),
            hidden=256,
            layers=2,
            dropout=0.1,
        ),
        options=Options(minutes=80, rate=2.5e-3),
        augmentation=Augmentation(),
        sources=[
            Source("speechocean", train, lambda p: 1.0, joined=(2, 2), together=0.15),
            Source("espeak", spoken, lambda p: max(0.0, 0.8 * (1 - p / 0.5))),
        ],
        noise=data.kitchen(rate),
        dev={
            "dev": dev,
            "adults": [u for u in dev if u.age >= 16],
            "children": [u for u in dev if u.age < 16],
        },
        limit=lambda p: 4.0 if p < 0.05 else 14.0,
        info={
            "data": "speechocean762 train without ten development speakers (2.6 h), espeak-ng phrases in the first half of training",
            "licence": LICENCE,
        },
    )


#: The speaker of the isolated-digit set that is left out of training, for reporting only.
LEFT_OUT = "jackson"


def digits() -> Recipe:
    rate = 8000
    corpus = data.speechocean("train", rate)
    spelling = sorted({u.speaker for u in corpus if u.is_digits})
    held = sorted({*dev_speakers(corpus, 3, 2), *spelling[2::5]})
    train, dev = data.by_speaker(corpus, held)
    takes = [u for u in data.fsdd(rate) if u.speaker != LEFT_OUT]
    wide = Augmentation(speeds=(0.8, 1.3), speed=0.85, time_width=12, reverb=0.3, noise=0.6)
    late = lambda a, b: lambda p: a + (b - a) * min(1.0, max(0.0, (p - 0.3) / 0.4))  # noqa: E731
    return Recipe(
        name="digits",
        config=AcousticConfig(
            "wavenet", rate, len(TOKENS), channels=128, skip=128, kernel=3, dilations=(1, 2, 4, 1, 2, 4, 8)
        ),
        options=Options(minutes=80, rate=3e-3),
        augmentation=wide,
        sources=[
            Source("sentences", [u for u in train if not u.is_digits], late(0.5, 0.25)),
            Source("strings", [u for u in train if u.is_digits], late(0.1, 0.3), joined=(1, 2)),
            Source("takes", takes, late(0.2, 0.3), joined=(1, 7), gaps=(0.0, 0.45)),
            Source("espeak", synthetic.digit_strings(4000, rate), late(0.2, 0.15)),
        ],
        noise=data.kitchen(rate),
        dev={
            "digits": [u for u in dev if u.is_digits],
            "sentences": [u for u in dev if not u.is_digits][::3],
        },
        limit=lambda p: 3.0 if p < 0.03 else 10.0,
        info={
            "lexicon": {word: data.pronounce(word) for word in data.DIGITS},
            "data": "speechocean762 train at 8 kHz without ten development speakers, its digit strings repeated; FSDD without "
            f"speaker {LEFT_OUT} joined into strings; espeak-ng digit strings",
            "licence": LICENCE,
        },
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"digits": digits, "english-small": english_small}
