"""Sampling inside the graph: settings of each step, counter-based random numbers, the choice of a token.

ONNX's own random operators keep their state outside of any snapshot and draw for a whole batch. Here a draw is a hash
of the stream's seed and its number of draws (the idea of Philox, Salmon et al. 2011; the mixing function is Wellons'
lowbias32), in int64 arithmetic: the same on every machine and in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers.base import State, Streaming

MASK = 0xFFFFFFFF
#: Temperature is given in thousandths; beyond this a distribution is flat.
HOTTEST = 10_000


def mix(x: Tensor) -> Tensor:
    """lowbias32: int64 within [0, 2^32) to the same, every bit of the result depends on every bit of ``x``."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK  # may pass 2^63: the low 32 bits are right all the same
    return x ^ (x >> 16)


class Noise(Streaming):
    """Seeds [B, T] int64 (0: the one before stays) -> ``width`` draws a step, uniform in [0, 1), [B, T, width] float32.

    State: the seed, and how many draws there were. A float32 below 1 has 24 bits, so 2^-24 is the grain of a draw.
    """

    receptive_field = None

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = width

    def initial_state(self, batch: int) -> State:
        return {name: torch.zeros(batch, 1, dtype=torch.int64) for name in ("count", "seed")}

    def forward(self, seeds: Tensor, state: State) -> tuple[Tensor, State]:
        steps = seeds.shape[1]
        last = _latest(seeds != 0, torch.arange(1, steps + 1))  # 0: the seed in the state
        seeds = torch.cat([state["seed"], seeds], dim=1).gather(1, last)  # [B, T]
        counts = state["count"][:, :, None] + torch.arange(steps * self.width).view(1, steps, self.width)
        key = mix(seeds & MASK)[:, :, None]
        draws = mix(mix((counts >> 32) ^ key) ^ (counts & MASK))
        # a second seed must not be a shift of the first
        draws = mix((draws + key * 0x9E3779B1) & MASK) >> 8
        return draws.float() * 2.0**-24, {"count": state["count"] + steps * self.width, "seed": seeds[:, steps - 1 :]}


class Onset(Streaming):
    """Labels [B, T] int64 -> how many steps each has been the same, [B, T] int64, at most ``most``."""

    receptive_field = None

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def initial_state(self, batch: int) -> State:
        return {name: torch.zeros(batch, 1, dtype=torch.int64) for name in ("label", "since")}

    def forward(self, labels: Tensor, state: State) -> tuple[Tensor, State]:
        steps = labels.shape[1]
        every = torch.arange(1, steps + 1)
        changed = labels != torch.cat([state["label"], labels[:, :-1]], dim=1)
        last = _latest(changed, every)
        since = torch.where(last > 0, every - last, state["since"] + every).clamp(max=self.most)
        return since, {"label": labels[:, steps - 1 :], "since": since[:, steps - 1 :]}


def _latest(happened: Tensor, every: Tensor) -> Tensor:
    """Up to each step, the last one of ``every`` = 1, 2, ... at which it happened [B, T]; 0 where it has not."""
    steps = len(every)
    return ((happened * every)[:, None, :] * torch.ones(steps, steps, dtype=torch.int64).tril()).amax(2)


@dataclass(frozen=True)
class SamplingSettings:
    """The request in a chunk's rows. ``scale`` [B, T, 1]: factor of the logits; ``top`` [B, T, 1] or None: how
    many tokens are left to choose from, less one; ``force`` [B, T, F]: tokens given, -1 where they are drawn;
    ``conditions``: name -> [B, T]."""

    seed: Tensor
    scale: Tensor
    top: Tensor | None
    force: Tensor
    conditions: Mapping[str, Tensor]


@dataclass(frozen=True)
class ControlColumns:
    """The columns of a generator's input: seed, temperature, then ``top_k`` if there is one, conditions, ``width``
    times ``force``. All of it zero: no new seed, the likeliest token, of all tokens, the first condition, free."""

    vocabulary: int
    width: int = 1
    top_k: bool = True
    conditions: Mapping[str, int] | None = None  # name -> how many there are

    def limits(self) -> dict[str, tuple[int, int]]:
        top = {"top_k": (0, self.vocabulary)} if self.top_k else {}
        force = {f"force{i}": (0, self.vocabulary) for i in range(self.width)}
        conditions = {name: (0, count - 1) for name, count in (self.conditions or {}).items()}
        return {"seed": (0, 2**31 - 1), "temperature": (0, HOTTEST), **top, **conditions, **force}

    def read(self, controls: Tensor) -> SamplingSettings:
        """``controls`` [B, T, columns] int32; whatever is outside of the limits is taken for the nearest inside."""
        bounds = self.limits()
        x = controls.long()
        x = x.maximum(torch.tensor([low for low, _ in bounds.values()]))
        x = x.minimum(torch.tensor([high for _, high in bounds.values()]))
        at = {name: x[:, :, i] for i, name in enumerate(bounds)}
        heat = at["temperature"][:, :, None].float()
        scale = torch.where(heat > 0, 1000.0 / heat.clamp(min=1.0), 1e6)
        top = None
        if self.top_k:
            k = at["top_k"][:, :, None]
            top = torch.where(k > 0, k, self.vocabulary) - 1
        conditions = {name: at[name] for name in self.conditions or {}}
        return SamplingSettings(at["seed"], scale, top, x[:, :, x.shape[2] - self.width :] - 1, conditions)


def choose(logits: Tensor, draw: Tensor, scale: Tensor, top: Tensor | None, force: Tensor) -> Tensor:
    """One token a row [B, 1] int64: logits [B, V], draw, scale, top, force [B, 1]. By the inverse of the cumulative
    distribution: the first token whose share, added to those before, is above the draw. One of no share never is."""
    logits = (logits - logits.amax(1, keepdim=True)) * scale
    if top is not None:
        least = logits.topk(logits.shape[1], dim=1).values.gather(1, top)  # sorted, the largest first
        logits = torch.where(logits < least, -1e30, logits)
    total = logits.softmax(1).cumsum(1)
    token = (total <= draw * total[:, -1:]).sum(1, keepdim=True)
    return torch.where(force >= 0, force, token)


def log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """[B, T, V], [B, T] -> [B, T]: log-probability, in nats, that the model gives each token at temperature 1."""
    return logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
