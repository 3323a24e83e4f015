"""Training with Lightning within a budget of time or steps: learning-rate schedule, averaged weights, log, resuming."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Budget:
    """``minutes`` of training, or ``steps`` if not 0; resumed runs count together. ``rate``: the highest learning rate.
    ``warm``: share of the budget for the linear warm-up. ``clip``: of the gradient norm. ``average``: decay of the
    weights' exponential average."""

    minutes: float = 60.0
    steps: int = 0
    rate: float = 2e-3
    warm: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    threads: int = 1


class Budgeted(lightning.LightningModule):
    """The training of one ``model``. After each epoch ``evaluate(average)`` returns the metrics of the averaged model,
    and ``save(path, average, about)`` writes it to ``last.pt``, and to ``best.pt`` if the metric "error" is the lowest
    so far.

    A subclass has ``training_step`` and ``configure_optimizers``, and appends each step's loss to ``losses``.
    """

    def __init__(
        self,
        model: nn.Module,
        options: Budget,
        evaluate: Callable[[Any], dict[str, float]],
        save: Callable[[Path, Any, dict[str, Any]], None],
        folder: Path,
    ) -> None:
        super().__init__()
        self.model, self.options, self.evaluate, self.save, self.folder = model, options, evaluate, save, folder
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.spent, self.taken, self.best = 0.0, 0, math.inf  # seconds, steps, error
        self.losses: list[float] = []
        self._clock = 0.0

    @property
    def progress(self) -> float:
        """Share of the budget used: 0 to 1."""
        options = self.options
        return self.taken / options.steps if options.steps else self.spent / (60.0 * options.minutes)

    def on_train_epoch_start(self) -> None:
        self._clock = time.monotonic()

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate(self.progress, self.options)

    def on_train_batch_end(self, outputs: Any, batch: Any, index: int) -> None:
        self.taken += 1
        now = time.monotonic()
        self.spent += min(60.0, now - self._clock)  # includes making the batch, but no suspend of the machine
        self._clock = now
        weight = min(self.options.average, (1 + self.taken) / (20 + self.taken))
        with torch.no_grad():
            for mine, theirs in zip(tensors(self.average), tensors(self.model), strict=True):
                mine.lerp_(theirs, 1 - weight)
        self.log("progress", self.progress, prog_bar=True)
        self.log("loss", self.losses[-1], prog_bar=True)
        if self.progress >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        scores = self.evaluate(self.average)
        row = {
            "step": self.taken, "minutes": self.spent / 60, "progress": self.progress,
            "rate": rate(self.progress, self.options), "loss": float(np.mean(self.losses)), **scores,
        }  # fmt: skip
        self.losses = []
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: round(float(v), 6) for k, v in row.items()}) + "\n")
        for name, value in scores.items():
            self.log(name, value, prog_bar=True)
        about = {"scores": {"dev": scores}, "steps": self.taken, "minutes": round(self.spent / 60, 1)}
        self.save(self.folder / "last.pt", self.average, about)
        if scores["error"] <= self.best:
            self.best = scores["error"]
            self.save(self.folder / "best.pt", self.average, about)

    def on_save_checkpoint(self, document: dict[str, Any]) -> None:
        document["budget"] = {"spent": self.spent, "taken": self.taken, "best": self.best}

    def on_load_checkpoint(self, document: dict[str, Any]) -> None:
        budget = document["budget"]
        self.spent, self.taken, self.best = budget["spent"], budget["taken"], budget["best"]


def tensors(module: nn.Module) -> list[Tensor]:
    """All weights and running statistics of floating point."""
    return [t for t in module.state_dict().values() if t.is_floating_point()]


def rate(progress: float, options: Budget) -> float:
    """The learning rate: a linear warm-up, then half a cosine down to a hundredth of the highest rate."""
    if progress < options.warm:
        return options.rate * (0.05 + 0.95 * progress / options.warm)
    share = min(1.0, (progress - options.warm) / (1 - options.warm))
    return options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def fit(training: Budgeted, batches: torch.utils.data.IterableDataset[Any], *, resume: bool = False) -> None:
    """Train until the budget is spent. ``folder/train.ckpt`` is for resuming; ``best.pt`` and ``last.pt`` hold the
    averaged weights. Raises ``FileNotFoundError`` if there is nothing to resume."""
    torch.set_num_threads(training.options.threads)
    state = training.folder / "train.ckpt"
    if resume and not state.exists():
        raise FileNotFoundError(f"{state}: nothing to resume there")
    if not resume and (training.folder / "log.jsonl").exists():
        (training.folder / "log.jsonl").unlink()
    keep = lightning.pytorch.callbacks.ModelCheckpoint(
        dirpath=training.folder,
        filename="train",
        save_top_k=1,
        enable_version_counter=False,
        save_on_train_epoch_end=True,
    )
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        logger=False,
        callbacks=[keep, lightning.pytorch.callbacks.TQDMProgressBar(refresh_rate=20)],
        gradient_clip_val=training.options.clip,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=0)
    trainer.fit(training, loader, ckpt_path=state if resume else None, weights_only=False)
