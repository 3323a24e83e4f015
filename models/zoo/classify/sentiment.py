"""The recipe ``sentiment``: for, against or neither, with an answer after each byte; trained on generated texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.training import checkpoint
from models.training.budget import Budget
from models.zoo.classify.opinions import BY_HAND, LABELS, Grammar
from models.zoo.classify.text_classifier import TextClassifierConfig, TextClassifierNetwork
from models.zoo.generate.teaching import leave
from models.zoo.speech.framewise import IGNORED, Batches, teach

MINUTES, BATCH, EPOCH = 6.0, 64, 100
CHUNK = 8  # bytes
#: Share of the bytes of a text that have the label, beside the last byte.
MIDWAY = 0.1
#: Number of texts of each score, and for training the bags of words.
SCORED, BAGGED = 3000, 30000
INFO: dict[str, Any] = {
    "name": "sentiment",
    "task": "classify",
    "input": {"name": "text", "dtype": "uint8", "chunk_shape": [CHUNK], "step_seconds": 0.0},
    "options": {"mode": "final", "labels": LABELS, "text": True},
    "description": "Is a short text for something, against it, or neither? Bytes, two GRUs of 72 units; an example: "
    "it knows the hundred and fifty words of the grammar that it learnt from.",
    "data": "texts of a grammar with negation and contrast (models/zoo/classify/opinions.py)",
    "licence": "Apache-2.0",
}


class LabelledTexts(NamedTuple):
    texts: list[str]
    labels: list[int]


def drawn(grammar: Grammar, count: int, kind: str = "known") -> LabelledTexts:
    """``count`` random texts of ``kind``; those of "new" are never neutral."""
    verdicts = [0, 2] if kind == "new" else range(len(LABELS))
    labels = grammar.rng.choice(verdicts, count).tolist()
    return LabelledTexts([grammar.draw(label, kind) for label in labels], labels)


def by_hand() -> LabelledTexts:
    lines = [(line, LABELS.index(label)) for label, text in BY_HAND.items() for line in text.splitlines()]
    return LabelledTexts([text for text, _ in lines], [label for _, label in lines])


def pack(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Bytes uint8 [B, T], padded with spaces, and lengths [B] in bytes."""
    encoded = [text.encode() for text in texts]
    lengths = torch.tensor([len(line) for line in encoded])
    width = int(lengths.max())
    rows = np.stack([np.frombuffer(line.ljust(width), np.uint8) for line in encoded])
    return torch.from_numpy(rows), lengths


def batch(grammar: Grammar) -> tuple[Tensor, Tensor]:
    """Bytes [B, T] and labels [B, T]: the text's label at its last byte and at some before it, else ``IGNORED``."""
    texts, labels = drawn(grammar, BATCH)
    rows, lengths = pack(texts)
    at = torch.arange(rows.shape[1])
    taught = torch.from_numpy(grammar.rng.random(rows.shape) < MIDWAY) & (at < lengths[:, None])
    taught |= at == lengths[:, None] - 1
    return rows, torch.where(taught, torch.tensor(labels)[:, None], IGNORED)


def train(folder: Path, minutes: float | None = None, steps: int = 0) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of
    ``minutes``."""
    torch.manual_seed(1)
    grammar, others = Grammar(1), Grammar(2)
    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=4e-3, average=0.99)
    batches = Batches(lambda: batch(grammar), min(EPOCH, steps or EPOCH))
    model = TextClassifierNetwork(TextClassifierConfig(len(LABELS)))
    best = teach(model, batches, [batch(others) for _ in range(8)], INFO, folder, budget)
    leave(folder, score(checkpoint.load(best)[0], BAGGED if not steps else 300, SCORED if not steps else 60))
    return best


# -- the score ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def answers(model: TextClassifierNetwork, texts: Sequence[str], share: float = 1.0) -> NDArray[np.int64]:
    """The model's label [N] after the ``share`` of each text's bytes."""
    found = []
    for first in range(0, len(texts), 256):
        rows, lengths = pack(texts[first : first + 256])
        output, _ = model(rows, model.initial_state(len(rows)))
        last = (lengths * share).long().clamp(min=1) - 1
        found.append(output["scores"][torch.arange(len(rows)), last].argmax(1))
    return torch.cat(found).numpy()


def score(model: TextClassifierNetwork, bagged: int = BAGGED, scored: int = SCORED) -> dict[str, float]:
    """Accuracy of the model, and of bags of words and of pairs of words, trained on texts of the same grammar."""
    grammar, learnt = Grammar(99), drawn(Grammar(3), bagged)
    sets = {
        "": drawn(grammar, scored),
        ", contrast of two negations": drawn(grammar, scored, "new"),
        ", by hand": by_hand(),
    }
    guess: dict[str, Callable[[Sequence[str]], NDArray[np.int64]]] = {"accuracy": lambda texts: answers(model, texts)}
    for name, longest in (("bag of words", 1), ("bag of words and pairs", 2)):
        guess[f"accuracy, {name}"] = bag(learnt, longest)
    found = {
        f"{name}{which}": float(np.mean(one(texts) == np.array(labels)))
        for name, one in guess.items()
        for which, (texts, labels) in sets.items()
    }
    half = answers(model, sets[""].texts, 0.5) == np.array(sets[""].labels)
    return found | {"accuracy after half of the text": float(half.mean())}


def bag(learnt: LabelledTexts, longest: int) -> Callable[[Sequence[str]], NDArray[np.int64]]:
    """The baseline: multinomial logistic regression on the set of a text's words (runs of up to ``longest``), without
    their order. Returns a function from texts to labels [N]."""
    known = {run: i for i, run in enumerate(sorted({run for text in learnt.texts for run in runs(text, longest)}))}

    def bags(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        lists = [[known[run] for run in runs(text, longest) if run in known] for text in texts]
        offsets = np.cumsum([0, *(len(row) for row in lists[:-1])])
        return torch.tensor([i for row in lists for i in row], dtype=torch.int64), torch.from_numpy(offsets)

    torch.manual_seed(1)
    model = nn.EmbeddingBag(len(known), len(LABELS), mode="sum")
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    rng = np.random.default_rng(1)
    for _ in range(10):
        for rows in np.array_split(rng.permutation(len(learnt.texts)), max(1, len(learnt.texts) // 256)):
            loss = F.cross_entropy(
                model(*bags([learnt.texts[i] for i in rows])), torch.tensor([learnt.labels[i] for i in rows])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def guess(texts: Sequence[str]) -> NDArray[np.int64]:
        return model(*bags(texts)).argmax(1).numpy()

    return guess


def runs(text: str, longest: int) -> set[tuple[str, ...]]:
    words = re.findall(r"[a-z']+|[?]", text.lower())
    return {tuple(words[i : i + n]) for n in range(1, longest + 1) for i in range(len(words) - n + 1)} | {()}
