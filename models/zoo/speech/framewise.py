"""Trains classifiers with one label a step, and computes their scores (ROC AUC, F1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit

__all__ = ["IGNORED", "Batches", "auc", "f1", "loss_of", "teach"]

#: The label of a step without loss.
IGNORED = -100

#: Input [B, N, ...], labels [B, T] int64.
Batch = tuple[Tensor, Tensor]


class Batches(torch.utils.data.IterableDataset[Batch]):
    """Epochs of ``batches`` batches from ``draw()``."""

    def __init__(self, draw: Callable[[], Batch], batches: int) -> None:
        self.draw, self.batches = draw, batches

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.batches):
            yield self.draw()


class Framewise(Budgeted):
    def training_step(self, batch: Batch, index: int) -> Tensor:
        loss = loss_of(self.model, batch)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.model.parameters(), lr=self.options.rate, weight_decay=self.options.weight_decay)


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy of ``model.logits`` in nats, binary for one label."""
    inputs, labels = batch
    logits, _ = model.logits(inputs, model.initial_state(len(inputs)))
    flat, labels = logits.flatten(0, 1), labels.flatten()
    if flat.shape[1] > 1:
        return F.cross_entropy(flat, labels, ignore_index=IGNORED)
    known = labels != IGNORED
    return F.binary_cross_entropy_with_logits(flat[known, 0], labels[known].float())


def teach(model: Any, batches: Batches, held: list[Batch], info: dict[str, Any], folder: Path, options: Budget) -> Path:
    """Train; returns the checkpoint with the lowest loss on ``held``, ``folder/best.pt``."""

    @torch.no_grad()
    def evaluate(average: Any) -> dict[str, float]:
        return {"error": float(np.mean([float(loss_of(average, batch)) for batch in held]))}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, info | about)

    fit(Framewise(model, options, evaluate, save, folder), batches)
    return folder / "best.pt"


def auc(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    """Area under the ROC curve: the probability that a positive has a higher score than a negative; ties count half."""
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]  # mean rank of equal ones, from 1
    yes = labels == 1
    n = int(yes.sum())
    return float((ranks[yes].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


def f1(guesses: NDArray[np.bool_], labels: NDArray[Any]) -> float:
    """Harmonic mean of precision and recall."""
    hits = int((guesses & (labels == 1)).sum())
    return 2 * hits / max(1, int(guesses.sum()) + int((labels == 1).sum()))
