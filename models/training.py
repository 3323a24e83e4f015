"""Training with Lightning: CTC, a schedule over a budget, an exponential average of the weights, a log, checkpoints."""

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

from models import checkpoint
from models.acoustic import Acoustic
from models.augment import Augmentation, spec_augment, warp_spectrum
from models.layers import State, inner
from models.mixture import Batch


@dataclass(frozen=True)
class Options:
    """How to train. The schedule runs over the budget, in minutes of training (or steps, if given), across resumes."""

    minutes: float = 60.0
    steps: int = 0
    rate: float = 2e-3
    warm: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    middle: float = 0.3  # weight of the middle head's loss
    truncate: int = 0  # back-propagation through time stops every so many mel frames; 0: never
    threads: int = 1


class Training(lightning.LightningModule):
    """One acoustic model in training. ``evaluate(model) -> {metric: value}``; the metric "error" picks the best one."""

    def __init__(
        self,
        model: Acoustic,
        options: Options,
        augmentation: Augmentation,
        evaluate: Callable[[Acoustic], dict[str, float]],
        folder: Path,
        info: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model, self.options, self.augmentation = model, options, augmentation
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.evaluate, self.folder, self.info = evaluate, folder, info
        self.loss = nn.CTCLoss(zero_infinity=True)
        self.rng = np.random.default_rng(0)
        self.spent, self.taken, self.best = 0.0, 0, math.inf  # seconds, steps, error rate
        self._clock = 0.0
        self._losses: list[float] = []

    @property
    def progress(self) -> float:
        """Share of the budget used: 0 to 1."""
        options = self.options
        return self.taken / options.steps if options.steps else self.spent / (60.0 * options.minutes)

    # --- one step -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, index: int) -> Tensor:
        model = self.model
        with torch.no_grad():
            state = model.initial_state(len(batch.pcm))
            mel, norm = model.front.layers["mel"], model.front.layers["norm"]
            energies, _ = mel(batch.pcm, inner(state, "front.mel"))
            energies = warp_spectrum(energies, mel.mels, self.augmentation, self.rng)
            features, _ = norm(energies, inner(state, "front.norm"))
            features = spec_augment(features, self.augmentation, self.rng)
        out, middle = encode_truncated(model, features, inner(state, "encoder"), self.options.truncate)
        lengths = -(-batch.samples // model.hop)
        loss = self.loss(out.transpose(0, 1), batch.targets, lengths, batch.lengths)
        if middle is not None:
            second = self.loss(middle.transpose(0, 1), batch.targets, lengths, batch.lengths)
            loss = (1 - self.options.middle) * loss + self.options.middle * second
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        plain = [p for p in self.model.parameters() if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.options.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.rate, betas=(0.9, 0.98))

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate(self.progress, self.options)

    def on_train_batch_end(self, outputs: Any, batch: Batch, index: int) -> None:
        self.taken += 1
        now = time.monotonic()
        self.spent += min(60.0, now - self._clock)  # includes making the batch; a suspended machine does not count
        self._clock = now
        weight = min(self.options.average, (1 + self.taken) / (20 + self.taken))
        with torch.no_grad():
            for mine, theirs in zip(tensors(self.average), tensors(self.model), strict=True):
                mine.lerp_(theirs, 1 - weight)
        self._losses.append(float(outputs["loss"]))
        self.log("progress", self.progress, prog_bar=True)
        self.log("loss", self._losses[-1], prog_bar=True)
        if self.progress >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        self._clock = time.monotonic()

    # --- once an epoch ----------------------------------------------------------------------------------------------

    def on_train_epoch_end(self) -> None:
        scores = self.evaluate(self.average)
        row = {
            "step": self.taken, "minutes": self.spent / 60, "progress": self.progress,
            "rate": rate(self.progress, self.options), "loss": float(np.mean(self._losses)), **scores,
        }  # fmt: skip
        self._losses = []
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: round(float(v), 6) for k, v in row.items()}) + "\n")
        for name, value in scores.items():
            self.log(name, value, prog_bar=True)
        info = self.info | {"scores": {"dev": scores}, "steps": self.taken, "minutes": round(self.spent / 60, 1)}
        checkpoint.save(self.folder / "last.pt", self.average, info)
        if scores["error"] <= self.best:
            self.best = scores["error"]
            checkpoint.save(self.folder / "best.pt", self.average, info)

    def on_save_checkpoint(self, document: dict[str, Any]) -> None:
        document["budget"] = {"spent": self.spent, "taken": self.taken, "best": self.best}

    def on_load_checkpoint(self, document: dict[str, Any]) -> None:
        budget = document["budget"]
        self.spent, self.taken, self.best = budget["spent"], budget["taken"], budget["best"]


def tensors(module: nn.Module) -> list[Tensor]:
    """All weights and running statistics that have an average."""
    return [t for t in module.state_dict().values() if t.is_floating_point()]


def rate(progress: float, options: Options) -> float:
    """A linear warm-up, then half a cosine down to a hundredth."""
    if progress < options.warm:
        return options.rate * (0.05 + 0.95 * progress / options.warm)
    share = min(1.0, (progress - options.warm) / (1 - options.warm))
    return options.rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def encode_truncated(model: Acoustic, features: Tensor, state: State, truncate: int) -> tuple[Tensor, Tensor | None]:
    """The encoder over [B, T, F] in pieces of ``truncate`` frames: the state is carried on, the gradient is not."""
    pieces = features.split(truncate, dim=1) if truncate else [features]
    outs, middles = [], []
    for piece in pieces:
        out, middle, state = model.encode_twice(piece, state)
        state = {name: value.detach() for name, value in state.items()}
        outs.append(out)
        middles.append(middle)
    if len(outs) == 1:
        return outs[0], middles[0]
    middle = None if middles[0] is None else torch.cat([m for m in middles if m is not None], dim=1)
    return torch.cat(outs, dim=1), middle


def fit(training: Training, batches: torch.utils.data.IterableDataset[Batch], *, resume: bool = False) -> None:
    """Train until the budget is spent; ``folder/train.ckpt`` is where a resume goes on, ``best.pt`` and ``last.pt`` are
    the averaged weights for everybody else."""
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
