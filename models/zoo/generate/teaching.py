"""Training of token generators by teacher forcing, and their n-gram baselines."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit

Tokens = NDArray[np.int64]


class TokenWindows(torch.utils.data.IterableDataset[Tensor]):
    """Random windows [batch, length] of one long sequence, ``batches`` an epoch, from one of the ``starts``, or by
    default from anywhere."""

    def __init__(self, tokens: Tokens, batch: int, length: int, batches: int, starts: Tokens | None = None) -> None:
        self.tokens, self.batch, self.length, self.batches = tokens, batch, length, batches
        last = len(tokens) - length
        self.starts = np.arange(last) if starts is None else starts[starts < last]
        self.rng = np.random.default_rng(1)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.batches):
            at = self.rng.choice(self.starts, self.batch)
            yield torch.from_numpy(self.tokens[at[:, None] + np.arange(self.length)])


class Teaching(Budgeted):
    """Training of a model with ``teach(tokens [B, T]) -> logits [B, T, V]``. Loss: mean negative log-likelihood, in
    nats."""

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = F.cross_entropy(self.model.teach(batch).flatten(0, 1), batch.flatten())
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def teach(
    model: Any,
    batches: TokenWindows,
    held: Tokens,
    info: dict[str, Any],
    folder: Path,
    options: Budget,
    length: int = 2048,
) -> Path:
    """Train; returns the checkpoint with the lowest error on ``held``, ``folder/best.pt``."""

    def evaluate(average: Any) -> dict[str, float]:
        return {"error": bits(average, held, length)}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, info | about)

    fit(Teaching(model, options, evaluate, save, folder), batches)
    return folder / "best.pt"


@torch.no_grad()
def bits(model: Any, tokens: Tokens, length: int = 2048) -> float:
    """Bits per token, over pieces of ``length`` tokens, each from a zero state."""
    whole = torch.from_numpy(tokens[: len(tokens) // length * length].reshape(-1, length))
    nats = [F.cross_entropy(model.teach(part).flatten(0, 1), part.flatten()) for part in whole.split(8)]
    sizes = [len(part) for part in whole.split(8)]
    return float(np.average([float(n) for n in nats], weights=sizes)) / math.log(2)


def ngram_bits(train: Sequence[int], held: Sequence[int], order: int, vocabulary: int) -> float:
    """Bits per token of an n-gram model with Witten-Bell smoothing (Witten and Bell 1991): the number of different
    tokens after a context is the weight of the lower order."""
    counts: list[dict[tuple[int, ...], Counter[int]]] = []
    for n in range(order):
        table: dict[tuple[int, ...], Counter[int]] = {}
        for i in range(n, len(train)):
            table.setdefault(tuple(train[i - n : i]), Counter())[train[i]] += 1
        counts.append(table)
    totals = [{context: sum(after.values()) for context, after in table.items()} for table in counts]
    nats = 0.0
    for i in range(len(held)):
        p = 1.0 / vocabulary
        for n in range(min(order, i + 1)):
            context = tuple(held[i - n : i])
            if after := counts[n].get(context):
                total, kinds = totals[n][context], len(after)
                p = (after[held[i]] + kinds * p) / (total + kinds)
        nats -= math.log(p)
    return nats / len(held) / math.log(2)


def leave(folder: Path, scores: dict[str, float]) -> None:
    """Write ``folder/scores.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps({k: round(v, 4) for k, v in scores.items()}, indent=1) + "\n")


def info(
    name: str, columns: dict[str, tuple[int, int]], steps: int, options: dict[str, Any], *, step_seconds: float = 0.0
) -> dict[str, Any]:
    """The common ``info`` of generators: the input, with ``steps`` rows a chunk, and the task's options."""
    chunk = {"name": "controls", "dtype": "int32", "chunk_shape": [steps, len(columns)], "step_seconds": step_seconds}
    return {
        "name": name, "task": "generate", "input": chunk | {"limits": [list(pair) for pair in columns.values()]},
        "options": {"columns": list(columns), **options},
    }  # fmt: skip
