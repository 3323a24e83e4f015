"""The recipe ``numbers``: an encoder-decoder that writes spoken numbers in digits, trained on generated phrases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.shipped.encoder_decoder import END, EncoderDecoder, EncoderDecoderConfig
from models.shipped.phrases import CLASSES, LONGEST, SIGNS, parsed, phrase
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.generate.teaching import leave
from streamer.tasks.spoken import SIGNS as WRITTEN
from streamer.tasks.spoken import WORDS, text

MINUTES = 8.0
STEPS = 8  # rows of a chunk
BATCH, EPOCH = 128, 200
TESTED = 500  # held-out phrases of each class
CODES = {word: code for code, word in enumerate(WORDS, 1)}
INFO: dict[str, Any] = {
    "name": "numbers",
    "task": "rewrite",
    "options": {"words": list(WORDS), "signs": list(WRITTEN)},
    "data": "number phrases made by rule (models/shipped/phrases.py); one number in ten held out",
    "licence": "Apache-2.0",
    "description": "Writes spoken English numbers in digits: two GRUs of 88 units, attention over 24 words.",
}

Pair = tuple[Tensor, Tensor]


def coded(phrases: list[tuple[list[str], str]]) -> Pair:
    """Codes of the words [B, S] and of the signs [B, U], int64, padded with 0 at the end."""
    words = np.zeros((len(phrases), LONGEST), np.int64)
    signs = np.zeros((len(phrases), SIGNS), np.int64)
    for row, (said, written) in enumerate(phrases):
        words[row, : len(said)] = [CODES[word] for word in said]
        codes = [*spelled(written), END]
        signs[row, : len(codes)] = codes
    longest = int((words > 0).sum(1).max()), int((signs > 0).sum(1).max())
    return torch.from_numpy(words[:, : longest[0]]), torch.from_numpy(signs[:, : longest[1]])


def spelled(written: str) -> list[int]:
    """Codes of the signs of ``written``, by longest match."""
    codes: list[int] = []
    while written:
        sign = max((s for s in WRITTEN if written.startswith(s)), key=len)
        codes.append(WRITTEN.index(sign) + 2)
        written = written[len(sign) :]
    return codes


class Phrases(torch.utils.data.IterableDataset[Pair]):
    """New random phrases in each batch; cardinals are twice as frequent as each other class."""

    def __init__(self, batches: int, seed: int = 1) -> None:
        self.batches, self.rng = batches, np.random.default_rng(seed)

    def __iter__(self) -> Iterator[Pair]:
        kinds = ["cardinal", *CLASSES]
        for _ in range(self.batches):
            yield coded([phrase(self.rng, kinds[i % len(kinds)]) for i in range(BATCH)])


class PhraseTeaching(Budgeted):
    """Training by teacher forcing. Loss: mean negative log-likelihood of a sign, in nats."""

    def training_step(self, batch: Pair, index: int) -> Tensor:
        words, signs = batch
        logits, _ = self.model.teach(words, signs)
        loss = F.cross_entropy(logits.flatten(0, 1), signs.flatten(), ignore_index=0)
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


@torch.no_grad()
def written(model: EncoderDecoder, phrases: list[list[str]]) -> list[str]:
    """The streaming model's output for each phrase, run as the daemon runs it; truncated if END does not come."""
    words, _ = coded([(said, "") for said in phrases])
    rows = torch.zeros(len(phrases), words.shape[1] + SIGNS, 2, dtype=torch.int32)
    for row, said in enumerate(phrases):
        shift = words.shape[1] - len(said)  # all phrases end in the same row
        rows[row, shift : words.shape[1], 0] = words[row, : len(said)].int()
        rows[row, words.shape[1] - 1, 1] = 1
    outputs, _ = model(rows, model.initial_state(len(phrases)))
    said_signs = outputs["signs"][:, words.shape[1] :].tolist()
    return [text(signs[: signs.index(END)] if END in signs else signs) for signs in said_signs]


def exact(model: EncoderDecoder, kind: str, count: int) -> tuple[float, float]:
    """Shares of held-out phrases of the class ``kind`` that the model, and a rule-based parser, write exactly."""
    rng = np.random.default_rng(7)
    phrases = [phrase(rng, kind, held=True) for _ in range(count)]
    got = written(model, [said for said, _ in phrases])
    right = [wanted for _, wanted in phrases]
    rule = [parsed(said) for said, _ in phrases]
    return float(np.mean([a == b for a, b in zip(got, right, strict=True)])), float(
        np.mean([a == b for a, b in zip(rule, right, strict=True)])
    )


def train(folder: Path, minutes: float | None = None, steps: int = 0, tested: int = TESTED) -> Path:
    """Train, score, and return the path of the best checkpoint. ``steps``: a budget in batches instead of ``minutes``;
    ``tested``: held-out phrases of each class."""
    torch.manual_seed(1)
    model = EncoderDecoder(EncoderDecoderConfig(len(WORDS), len(WRITTEN) + 2, slots=LONGEST))
    source = {"name": "phrase", "dtype": "int32", "chunk_shape": [STEPS, 2], "step_seconds": 0.0}
    info = INFO | {"input": source | {"limits": [list(pair) for pair in model.limits()]}}

    def evaluate(average: Any) -> dict[str, float]:
        shares = [exact(average, kind, max(1, tested // 5))[0] for kind in CLASSES]
        return {"error": 1 - float(np.mean(shares))}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, info | about)

    budget = Budget(minutes=minutes or MINUTES, steps=steps, rate=5e-3, average=0.99)
    fit(PhraseTeaching(model, budget, evaluate, save, folder), Phrases(min(EPOCH, steps or EPOCH)))
    best = folder / "best.pt"
    trained = checkpoint.load(best)[0]
    shares = {kind: exact(trained, kind, tested) for kind in CLASSES}
    mean = np.mean(list(shares.values()), axis=0)
    scores = {"exact match": float(mean[0]), "exact match, parser by rule": float(mean[1])}
    scores |= {f"exact match, {kind}": share for kind, (share, _) in shares.items()}
    leave(folder, scores)
    return best
