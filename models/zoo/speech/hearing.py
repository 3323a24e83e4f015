"""Trains small recognisers on a pool of batches, with CTC, or with the transducer's loss and CTC."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.speech.ctc import ctc
from models.speech.data import Utterance
from models.speech.mixture import SpeechBatch
from models.training import checkpoint
from models.training.budget import Budget, Budgeted, fit
from models.zoo.speech.digit_strings import RATE, DigitPool, score
from models.zoo.speech.lattice import transducer_loss
from models.zoo.speech.transducer import Transducer

#: Weight of the CTC loss on the output of a transducer's encoder; without it, training takes long to leave the blank.
BESIDE = 1.0
#: See :func:`models.zoo.speech.lattice.transducer_loss`.
HURRY = 0.02


class Hearing(Budgeted):
    """The training of one recogniser. Losses are in nats per symbol."""

    def __init__(self, model: Any, *rest: Any) -> None:
        super().__init__(model, *rest)
        self.beside: nn.Linear | None = None
        if isinstance(model, Transducer):
            self.beside = nn.Linear(model.ear.width, model.config.ear.tokens)

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        model, lengths = self.model, -(-batch.samples // self.model.hop)
        if self.beside is None:
            late = model.latency // model.hop
            pcm = F.pad(batch.pcm, (0, model.latency))
            log_probs, _ = model(pcm, model.initial_state(len(pcm)))
            # the outputs before the first sample count, too: without a loss they would be random words
            loss = main = ctc(log_probs, lengths + late, batch.targets, 1)
        else:
            rows = nn.utils.rnn.pad_sequence(list(batch.targets.symbols.split(batch.targets.lengths.tolist())), True)
            log_probs, hidden = model.lattice(batch.pcm, rows)
            nats = transducer_loss(log_probs, rows, lengths, batch.targets.lengths, hurry=HURRY)
            main = nats.sum() / batch.targets.lengths.sum()
            loss = main + BESIDE * ctc(self.beside(hidden).log_softmax(dim=2), lengths, batch.targets, 1)
        self.losses.append(float(main.detach()))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        beside = [] if self.beside is None else list(self.beside.parameters())
        trained = [*self.model.parameters(), *beside]
        return torch.optim.AdamW(trained, lr=self.options.rate, weight_decay=self.options.weight_decay)


def teach(
    model: Any, pool: DigitPool, held: Sequence[Utterance], info: dict[str, Any], folder: Path, options: Budget
) -> Path:
    """Train; returns the checkpoint with the lowest word error rate on ``held``, ``folder/best.pt``."""

    def evaluate(average: Any) -> dict[str, float]:
        return {"error": score(average, held).rate}

    def save(path: Path, average: Any, about: dict[str, Any]) -> None:
        checkpoint.save(path, average, info | about)

    model.ear.normalise(torch.cat([batch.pcm.reshape(1, -1) for batch in pool.batches[:8]], 1)[:, : 320 * RATE])
    fit(Hearing(model, options, evaluate, save, folder), pool)
    return folder / "best.pt"
