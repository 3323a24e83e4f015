"""The recipe ``digit-sequences``: compares all families as recognisers of digits, with equal parameters and batches.

All have the same log-mel and convolutions in front, and CTC. ``folder/table.md`` is the table,
``folder/digits-FAMILY/best.pt`` a family's model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from models.speech import data
from models.speech.data import Utterance
from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.forecast.sequence import FAMILIES, HEADS, LAYERS, body
from models.zoo.generate.teaching import leave
from models.zoo.speech.digit_strings import INFO, RATE, TOKENS, DigitPool, score, spoken, test_sets
from models.zoo.speech.hearing import teach
from models.zoo.speech.listener import Listener, ListenerConfig

#: ``BATCHES``: of the pool; the models memorise 200.
PARAMETERS, STEPS, BATCHES = 60_000, 3600, 800
#: The layers below the body.
EAR = ListenerConfig(len(TOKENS), channels=40, dilations=(1,), hidden=HEADS, family="linear")
SECONDS_A_STEP = 0.04


def train(folder: Path, minutes: float | None = None) -> None:
    """Train and score all families. ``minutes``: for all together, in equal parts. Raises ``FileNotFoundError`` if the
    shared data is missing."""
    sources, held = spoken()
    each = (minutes or 0.0) / (1 + len(FAMILIES))
    budget = Budget(minutes=each, steps=0 if minutes else STEPS, rate=4e-3, average=0.99)
    learn(DigitPool(sources, data.kitchen(RATE), BATCHES, epoch=200), held, test_sets(), folder, budget)


def learn(
    pool: DigitPool, held: list[Utterance], sets: Mapping[str, list[Utterance]], folder: Path, budget: Budget,
    ear: ListenerConfig = EAR, parameters: int = PARAMETERS,
) -> None:  # fmt: skip
    """As :func:`train`, on other data. ``held`` picks the best average of each run; ``sets`` give the table."""
    rows = []
    for family in ("linear", *FAMILIES):
        torch.manual_seed(1)
        model = sized(family, ear, parameters)
        name = f"digits-{family}"
        begin = time.process_time()
        best = teach(model, pool, held, INFO | {"name": name, "description": about(model)}, folder / name, budget)
        spent = time.process_time() - begin
        found, _ = checkpoint.load(best)
        scores = {f"WER %, {name}": 100 * score(found, recordings).rate for name, recordings in sets.items()}
        leave(folder / name, scores)
        rows.append(row(family, model, list(scores.values()), spent))
    (folder / "table.md").write_text(table(sets, rows))
    print((folder / "table.md").read_text())
    for family in FAMILIES:
        name = folder / f"digits-{family}"
        print(f"python -m export {name}/best.pt -o models/zoo/trained/{name.name}.onnx --scores {name}/scores.json")


def size(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


def sized(family: str, ear: ListenerConfig = EAR, parameters: int = PARAMETERS) -> Listener:
    """The widest model of a family with at most ``parameters``; without a body, the narrowest."""
    found = Listener(replace(ear, family=family))
    while LAYERS[family]:
        wider = Listener(replace(found.config, hidden=found.config.hidden + (HEADS if family == "transformer" else 1)))
        if size(wider) > parameters:
            break
        found = wider
    return found


def seen(model: Listener) -> str:
    """The past that the body sees, in words."""
    field = body(model.config.family or "linear", model.config.hidden).receptive_field
    return "no end" if field is None else f"{(field - 1) * SECONDS_A_STEP:.1f} s"


def about(model: Listener) -> str:
    c = model.config
    return (
        f"Digits: {LAYERS[c.family or 'linear']} layers of {c.family}, {c.hidden} wide, over log-mel and convolutions; "
        f"CTC. The body looks back: {seen(model)}."
    )


def row(family: str, model: Listener, rates: list[float], spent: float) -> str:
    body = "none" if family == "linear" else family
    cells = [body, f"{LAYERS[family]} x {model.config.hidden}", f"{size(model):,}", seen(model)]
    return "| " + " | ".join([*cells, *(f"{rate:.1f}" for rate in rates), f"{spent / 60:.1f}"]) + " |"


def table(sets: Mapping[str, list[Utterance]], rows: list[str]) -> str:
    """The Markdown table of all families."""
    words = {name: sum(len(u.text.split()) for u in recordings) for name, recordings in sets.items()}
    heads = ["body", "layers x width", "parameters", "looks back"]
    heads += [f"WER %, {name} ({count} words)" for name, count in words.items()] + ["CPU minutes of training"]
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads), *rows]) + "\n"
