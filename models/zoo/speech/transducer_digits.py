"""The recipe ``transducer-digits``: compares a transducer and CTC with the same encoder, on strings of digits."""

from __future__ import annotations

from pathlib import Path

import torch

from models.speech import data
from models.speech.data import Utterance
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.generate.teaching import leave
from models.zoo.speech.digit_strings import INFO, RATE, TOKENS, DigitPool, score, spoken, test_sets
from models.zoo.speech.hearing import teach
from models.zoo.speech.listener import Listener, ListenerConfig
from models.zoo.speech.transducer import Transducer, TransducerConfig

#: About eight minutes of a core for each of the two. The models memorise a pool of 200 batches.
STEPS, BATCHES = 3600, 800
EAR = ListenerConfig(len(TOKENS))
DESCRIPTION = (
    "Digits, by a recurrent transducer: log-mel, convolutions and a GRU hear, a second GRU remembers what was said; at "
    "most two words in 40 ms."
)


def train(folder: Path, minutes: float | None = None) -> Path:
    """Train both for the same steps (or ``minutes`` each), score, and return the transducer's checkpoint.

    Raises ``FileNotFoundError`` if the shared data is missing.
    """
    sources, held = spoken()
    budget = Budget(minutes=minutes or 0.0, steps=0 if minutes else STEPS, rate=4e-3, average=0.99)
    pool = DigitPool(sources, data.kitchen(RATE), BATCHES, epoch=200)
    best, plain = learn(pool, held, folder, budget)
    leave(folder, compare(best, plain, test_sets()))
    return best


def learn(
    pool: DigitPool, held: list[Utterance], folder: Path, budget: Budget, ear: ListenerConfig = EAR
) -> tuple[Path, Path]:
    """Train both; returns the checkpoints of the transducer and, in ``folder/ctc``, of CTC."""
    torch.manual_seed(1)
    info = {**INFO, "name": "transducer-digits", "description": DESCRIPTION}
    best = teach(Transducer(TransducerConfig(ear)), pool, held, info, folder, budget)
    torch.manual_seed(1)
    return best, teach(Listener(ear), pool, held, {**INFO, "name": "ctc-digits"}, folder / "ctc", budget)


def compare(best: Path, plain: Path, sets: dict[str, list[Utterance]]) -> dict[str, float]:
    """Word error rates in percent."""
    found = {}
    for said, path in (("", best), (", CTC on the same ear", plain)):
        model, _ = checkpoint.load(path)
        found |= {f"WER %, {name}{said}": 100 * score(model, recordings).rate for name, recordings in sets.items()}
    return found
