"""The class of recipes, and functions that recipes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from models.speech.acoustic import Acoustic, AcousticConfig
from models.speech.augment import Augmentation, Waveforms
from models.speech.ctc import CtcOptions
from models.speech.data import TOKENS, Pcm, Utterance
from models.speech.mixture import Spell, UtteranceSource, spell_phones
from models.training.score import token_error


@dataclass
class Recipe:
    """Everything that ``python -m models train NAME`` needs: the model, the data and the budget.

    ``dev``: sets of recordings by name; the mean error rate of the sets in ``chosen_by`` (default: the first) picks the
    best checkpoint.
    ``seconds``: of audio in a batch. ``batches``: from one evaluation (and checkpoint) to the next.
    ``limit``: longest example in seconds, by progress. ``info``: fields of the checkpoint beside the scores.
    ``tokens``: the model's vocabulary, ``units`` their kind, ``spell`` converts recordings to token indices.
    ``hearing``: the class that augments waveforms.
    """

    name: str
    config: AcousticConfig
    options: CtcOptions
    augmentation: Augmentation
    sources: list[UtteranceSource]
    noise: Pcm
    dev: dict[str, list[Utterance]]
    seconds: float = 40.0
    batches: int = 400
    limit: Callable[[float], float] = field(default=lambda progress: 14.0)
    info: dict[str, Any] = field(default_factory=dict)
    tokens: list[str] = field(default_factory=lambda: TOKENS)
    units: str = "phones"
    spell: Spell = spell_phones
    chosen_by: tuple[str, ...] = ()
    hearing: type[Waveforms] = Waveforms

    def evaluate(self, model: Acoustic) -> dict[str, float]:
        scores = {
            name: token_error(model, utterances, [self.spell([u]) for u in utterances], self.tokens)
            for name, utterances in self.dev.items()
        }
        deciding = self.chosen_by or tuple(self.dev)[:1]
        error = sum(scores[name] for name in deciding) / len(deciding)
        return {"error": error, **{f"per_{name}": value for name, value in scores.items()}}

    def description(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "task": "transcribe",
            "units": self.units,
            "family": self.config.family,
            "sample_rate": self.config.sample_rate,
            "hop": self.config.sample_rate // 100 * math.prod(self.config.strides),
            "tokens": self.tokens,
            "flush_seconds": 0.4,
            "lexicon": {},
            **self.info,
        }


def set_normaliser(model: Acoustic, utterances: list[Utterance], seed: int = 0) -> None:
    """Set the normaliser's constants from the log-mel energies of at most 200 random recordings."""
    rng = np.random.default_rng(seed)
    chosen = [utterances[int(i)] for i in rng.permutation(len(utterances))[:200]]
    mel, norm = model.front.layers["mel"], model.front.layers["norm"]
    with torch.no_grad():
        frames = [mel(torch.from_numpy(_whole_steps(u.pcm, model.hop)), mel.initial_state(1))[0][0] for u in chosen]
        norm.set_constants(torch.cat(frames))


def _whole_steps(pcm: Pcm, hop: int) -> Pcm:
    return np.array(pcm[: max(hop, len(pcm) // hop * hop)])[None]


def dev_speakers(utterances: Iterable[Utterance], adults: int = 5, children: int = 5) -> list[str]:
    """Speakers to hold out of training for development: evenly spread over the sorted speakers of each age group."""
    ages = {u.speaker: u.age for u in utterances}
    grown = [s for s in sorted(ages) if ages[s] >= 16]
    young = [s for s in sorted(ages) if ages[s] < 16]
    return [
        group[int((i + 0.5) * len(group) / count)]
        for count, group in ((adults, grown), (children, young))
        for i in range(min(count, len(group)))
    ]
