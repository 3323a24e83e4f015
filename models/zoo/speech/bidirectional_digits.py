"""The recipe ``bidirectional-digits``: word error rate by steps of look-ahead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from models.speech import data
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.generate.teaching import leave
from models.zoo.speech.digit_strings import INFO, RATE, TOKENS, DigitPool, score, spoken, test_sets
from models.zoo.speech.hearing import teach
from models.zoo.speech.listener import Listener, ListenerConfig

#: Steps of look-ahead, 40 ms each. ``None``: the forward direction only, a GRU of the same width.
AHEAD = (None, 0, 2, 4, 8)
#: The look-ahead of the zoo's file.
SHOWN = 4
#: Three to four minutes of a core for each model. More look-ahead learns more slowly: after 1200 steps, models with
#: 160 ms and more are still worse.
STEPS = 3600
NAME = "bidirectional-digits"
DESCRIPTION = (
    "Digits, by a bidirectional LSTM that listens on for {ahead} steps of 40 ms: log-mel and convolutions below, "
    "CTC on top."
)


def train(folder: Path, minutes: float | None = None, steps: int = STEPS) -> Path:
    """Train and score all models, draw ``folder/latency.png``, and return the checkpoint with ``SHOWN`` steps.
    ``minutes``: for all together, instead of ``steps`` for each.

    Raises ``FileNotFoundError`` if the shared data is missing.
    """
    sources, held = spoken()
    each = (minutes or 0.0) / len(AHEAD)
    budget = Budget(minutes=each, steps=0 if minutes else steps, rate=4e-3, average=0.99)
    pool, sets = DigitPool(sources, data.kitchen(RATE)), test_sets()
    curve: dict[str, dict[str, float]] = {name: {} for name in sets}
    for ahead in AHEAD:
        torch.manual_seed(1)
        said = "forward" if ahead is None else f"ahead-{ahead}"
        info = {**INFO, "name": NAME, "description": DESCRIPTION.format(ahead=ahead)}
        best = teach(Listener(ListenerConfig(len(TOKENS), ahead=ahead)), pool, held, info, folder / said, budget)
        model, _ = checkpoint.load(best)
        for name, recordings in sets.items():
            curve[name][said] = 100 * score(model, recordings).rate
    scores = {f"WER %, {name}": found[f"ahead-{SHOWN}"] for name, found in curve.items()}
    scores |= {f"WER %, {name}, the past alone": found["forward"] for name, found in curve.items()}
    folder.joinpath("curve.json").write_text(json.dumps(curve, indent=1))
    draw(curve, folder / "latency.png")
    model, info = checkpoint.load(folder / f"ahead-{SHOWN}" / "best.pt")
    checkpoint.save(folder / "best.pt", model, info)
    leave(folder, scores)
    return folder / "best.pt"


def draw(curve: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw word error rates. ``curve``: in percent, by test set, then by "forward" or "ahead-N"."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for colour, (name, found) in zip(("tab:blue", "tab:orange"), curve.items(), strict=True):
        steps = [ahead for ahead in AHEAD if ahead is not None]
        values = [found[f"ahead-{ahead}"] for ahead in steps]
        axes.plot([40 * ahead for ahead in steps], values, "o-", color=colour, label=f"{name}: both directions")
        axes.axhline(found["forward"], linestyle="--", color=colour, label=f"{name}: the past alone (GRU)")
    axes.set(xlabel="look-ahead, ms", ylabel="word error rate, %", ylim=(0, None))
    axes.set_title("digits: word error rate against latency, same training for each")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
