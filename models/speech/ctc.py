"""Training of acoustic models, and its losses.

The main loss is CTC on the model's tokens. Further losses: CTC on phones and a framewise loss from alignments, in the
middle of the model and at its end, and consistency: two differently masked and warped views of every recording should
have the same posteriors (CR-CTC, Yao et al. 2024, arXiv 2410.05101).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.layers import LogMel, RunningNorm, State, inner
from models.speech.acoustic import Acoustic
from models.speech.augment import Augmentation, spec_augment, warp_spectrum
from models.speech.data import TOKENS
from models.speech.mixture import SpeechBatch, Targets
from models.speech.rest import begun, rest
from models.training import checkpoint
from models.training.budget import Budget, Budgeted
from models.training.processor import fast_bfloat16


@dataclass(frozen=True)
class CtcOptions(Budget):
    """The settings of a training. ``phones``, ``frames`` and ``consistency``: weights of the further losses."""

    phones: float = 0.3
    frames: float = 0.5  # at the start; a third of it at the end
    consistency: float = 0.2  # 0: one view of every recording, no such loss
    consistent_from: float = 0.0  # progress from which there are two views: a model that underfits needs only one
    delay: float = 0.24  # seconds by which the framewise loss delays labels, so that the model hears what follows
    bfloat16: bool = field(default_factory=fast_bfloat16)
    primed: float = 0.0  # share of the examples whose normaliser starts as in a stream that has run in noise
    rested: float = 0.0  # share of the examples that start in a state after up to ``rest`` seconds without speech
    rest: float = 60.0
    truncate: int = 0  # length in mel frames of truncated back-propagation through time; 0: not truncated


class Heads(nn.Module):
    """Outputs for training only: phones by CTC, and the phone of each of a step's ``frames`` frames of 10 ms."""

    def __init__(self, model: Acoustic, frames: int) -> None:
        super().__init__()
        widths = {"end": model.width}
        if model.config.family == "lstm":
            widths["middle"] = model.config.channels
        self.phones = nn.ModuleDict({place: nn.Linear(width, len(TOKENS)) for place, width in widths.items()})
        self.frames = nn.ModuleDict({place: nn.Linear(width, frames * len(TOKENS)) for place, width in widths.items()})


class CtcTraining(Budgeted):
    """The training of one acoustic model."""

    options: CtcOptions

    def __init__(
        self,
        model: Acoustic,
        options: CtcOptions,
        augmentation: Augmentation,
        evaluate: Callable[[Acoustic], dict[str, float]],
        folder: Path,
        info: dict[str, Any],
    ) -> None:
        def save(path: Path, average: Acoustic, about: dict[str, Any]) -> None:
            checkpoint.save(path, average, info | about)

        super().__init__(model, options, evaluate, save, folder)
        self.augmentation = augmentation
        self.heads = Heads(model, model.encoder.stride)
        self.rng = np.random.default_rng(0)
        self.kept: list[State] = []

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        if self.options.rested:
            self.kept = rest(self.model, self.options.rest, self.rng)

    # --- one step -------------------------------------------------------------------------------------------------

    def training_step(self, batch: SpeechBatch, index: int) -> Tensor:
        options = self.options
        views = 2 if options.consistency and self.progress >= options.consistent_from else 1
        hidden, middle = self._encode(batch.pcm, views)
        lengths = (-(-batch.samples // self.model.hop)).repeat(views)
        main = self.model.head(hidden).log_softmax(dim=2)
        loss = ctc(main, lengths, batch.targets, views)
        self.losses.append(float(loss.detach()))
        weight = options.frames * (1 - 2 / 3 * min(1.0, self.progress))
        late = round(options.delay * self.model.sample_rate / self.model.hop)
        for place, x, delay in (("middle", middle, late // 2), ("end", hidden, late)):
            if x is None:
                continue
            if options.phones:
                phones = self.heads.phones[place](x).log_softmax(dim=2)
                loss = loss + options.phones * ctc(phones, lengths, batch.phones, views)
            if options.frames and delay < x.shape[1]:
                logits = self.heads.frames[place](x)
                loss = loss + weight * framewise(logits, batch.frames, delay, views)
        if views == 2:
            worth = symbols_of(batch.targets.lengths, lengths[: len(batch.samples)])
            loss = loss + options.consistency * disagreement(main, lengths) / worth
        return loss

    def _encode(self, pcm: Tensor, views: int) -> tuple[Tensor, Tensor | None]:
        """Hidden layers [views * B, T, ...] of augmented features: all recordings' first view, then their second."""
        model = self.model
        with torch.no_grad():
            state, rested = model.initial_state(len(pcm) * views), None
            if self.options.rested:
                state, rested = begun(state, self.kept, self.options.rested, self.rng)
            mel, norm = model.front.layers["mel"], model.front.layers["norm"]
            energies, _ = mel(pcm, mel.initial_state(len(pcm)))
            energies = energies.repeat(views, 1, 1)
            energies = warp_spectrum(energies, mel.mels, self.augmentation, self.rng)
            running = inner(state, "front.norm")
            if self.options.primed:
                other = primed(mel, norm, energies, self.options.primed, self.rng)
                if rested is not None:
                    other = {name: torch.where(rested[:, None], running[name], value) for name, value in other.items()}
                running = other
            features, _ = norm(energies, running)
            features = spec_augment(features, self.augmentation, self.rng)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.options.bfloat16):
            end, middle = encode_truncated(model, features, inner(state, "encoder"), self.options.truncate)
        return end.float(), None if middle is None else middle.float()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [*self.model.parameters(), *self.heads.parameters()]
        decayed = [p for p in trained if p.ndim > 1]
        plain = [p for p in trained if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": self.options.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.options.rate, betas=(0.9, 0.98))


def primed(mel: LogMel, norm: RunningNorm, energies: Tensor, share: float, rng: np.random.Generator) -> State:
    """A state of the normaliser [B, ...], which for a ``share`` of the rows has drifted away from speech: as after 1 to
    30 s of noise like the quietest tenth of their ``energies`` [B, T, F], at a random level. (Digital silence does not
    change the normaliser.)"""
    rows = len(energies)
    quiet = torch.quantile(energies, 0.1, dim=1)
    quiet = quiet + torch.from_numpy(rng.uniform(-5.0, 1.0, (rows, 1))).float()
    before = quiet.clamp(min=math.log(mel.floor))
    frames = torch.from_numpy(rng.uniform(100, norm.horizon, (rows, 1))).float()
    frames = frames * torch.from_numpy(rng.random((rows, 1)) < share)
    if norm.quiet is not None:
        frames = frames * (before.mean(dim=1, keepdim=True) - norm.quiet).clamp(0.0, 1.0)
    # the deviation of noise is about a quarter of that of speech
    return drifted(norm, before, frames, torch.full((rows, 1), 0.06))


def drifted(norm: RunningNorm, before: Tensor, frames: Tensor, variance: Tensor) -> State:
    """The normaliser's state [B, ...] after ``frames`` [B, 1] frames with a mean ``before`` [B, F] and a ``variance``
    [B, 1], in units of the training data's. Exact up to the normaliser's horizon."""
    weight = frames / (norm.prior + frames)
    before = (before - norm.mean) / norm.std
    return {"count": frames, "mean": weight * before, "square": weight * (before.square() + variance - 1.0)}


def ctc(log_probs: Tensor, lengths: Tensor, targets: Targets, views: int) -> Tensor:
    """CTC's negative log-likelihood per symbol (see :func:`symbols_of`). ``log_probs`` [views * B, T, V], ``lengths``
    [views * B]."""
    symbols, counts = targets.symbols.repeat(views), targets.lengths.repeat(views)
    loss = nn.functional.ctc_loss(
        log_probs.transpose(0, 1), symbols, lengths, counts, reduction="sum", zero_infinity=True
    )
    return loss / symbols_of(counts, lengths)


def symbols_of(counts: Tensor, lengths: Tensor) -> Tensor:
    """The total weight of rows, in symbols: their ``counts`` [B], or a quarter of the steps ``lengths`` [B] for a row
    without speech. With its count of zero, a batch of such rows would outweigh all speech."""
    return torch.where(counts > 0, counts, lengths.div(4, rounding_mode="floor")).sum().clamp(min=1)


def framewise(logits: Tensor, frames: Tensor, delay: int, views: int) -> Tensor:
    """Cross-entropy of every frame's phone. ``logits`` [views * B, T, S * V]: of the S frames ``delay`` steps ago;
    ``frames`` [B, T * S]: labels, negative where unknown."""
    rows, steps, _ = logits.shape
    labels = frames.reshape(len(frames), steps, -1).repeat(views, 1, 1)[:, : steps - delay]
    if not (labels >= 0).any():
        return logits.new_zeros(())
    logits = logits[:, delay:].reshape(rows, steps - delay, labels.shape[2], -1)
    return nn.functional.cross_entropy(logits.flatten(0, 2), labels.flatten(), ignore_index=-1, label_smoothing=0.1)


def disagreement(log_probs: Tensor, lengths: Tensor) -> Tensor:
    """Sum over steps of the symmetric Kullback-Leibler divergence between the first half of the rows and the second;
    the gradient does not pass through the target of either."""
    first, second = log_probs.chunk(2)
    real = torch.arange(first.shape[1]) < lengths[: len(first), None]
    there = (second.detach().exp() * (second.detach() - first)).sum(2)
    back = (first.detach().exp() * (first.detach() - second)).sum(2)
    return ((there + back) * real).sum() / 2


def encode_truncated(model: Acoustic, features: Tensor, state: State, truncate: int) -> tuple[Tensor, Tensor | None]:
    """The outputs of :meth:`Acoustic.hidden` over ``features`` [B, T, F], in pieces of ``truncate`` frames: the state
    passes from piece to piece, the gradient does not."""
    pieces = features.split(truncate, dim=1) if truncate else [features]
    ends, middles = [], []
    for piece in pieces:
        end, middle, state = model.hidden(piece, state)
        state = {name: value.detach() for name, value in state.items()}
        ends.append(end)
        middles.append(middle)
    if len(ends) == 1:
        return ends[0], middles[0]
    middle = None if middles[0] is None else torch.cat([m for m in middles if m is not None], dim=1)
    return torch.cat(ends, dim=1), middle
