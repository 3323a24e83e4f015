"""Sampling inside the graph: settings of each step, counter-based random numbers, the choice of a token.

ONNX's own random operators keep a state that no snapshot contains, and draw for a whole batch. Here a draw is a hash of
the stream's seed and its number of draws (the idea of Philox, Salmon et al. 2011; the mixing function is Wellons'
lowbias32), in int64 arithmetic: the same on every machine and in every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.layers.base import State, Streaming

MASK = 0xFFFFFFFF
#: The highest temperature, in thousandths; beyond it a distribution is flat.
HOTTEST = 10_000


def mix(x: Tensor) -> Tensor:
    """lowbias32, on int64 within [0, 2^32): every bit of the result depends on every bit of ``x``."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK  # may overflow int64; the low 32 bits are still right
    return x ^ (x >> 16)


class Noise(Streaming):
    """Seeds [B, T] int64 (0: keep the last one) -> ``width`` draws a step, uniform in [0, 1), [B, T, width] float32.

    State, int64 [B, 1]: ``seed``, and ``count``, the number of draws so far. Draws are multiples of 2^-24, the
    resolution of float32 below 1.
    """

    receptive_field = None

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.width = width

    def initial_state(self, batch: int) -> State:
        return {name: torch.zeros(batch, 1, dtype=torch.int64) for name in ("count", "seed")}

    def forward(self, seeds: Tensor, state: State) -> tuple[Tensor, State]:
        steps = seeds.shape[1]
        last = _latest(seeds != 0, torch.arange(1, steps + 1))  # 0: the state's seed
        seeds = torch.cat([state["seed"], seeds], dim=1).gather(1, last)  # [B, T]
        counts = state["count"][:, :, None] + torch.arange(steps * self.width).view(1, steps, self.width)
        key = mix(seeds & MASK)[:, :, None]
        draws = mix(mix((counts >> 32) ^ key) ^ (counts & MASK))
        # a second seed must not be a shift of the first
        draws = mix((draws + key * 0x9E3779B1) & MASK) >> 8
        return draws.float() * 2.0**-24, {"count": state["count"] + steps * self.width, "seed": seeds[:, steps - 1 :]}


class Onset(Streaming):
    """Labels [B, T] int64 -> the number of steps since the label changed, [B, T] int64, at most ``most``."""

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
    """For each step the last one so far at which ``happened`` [B, T] bool was true, counted by ``every`` = 1, 2, ...
    [T]; 0 if there is none. [B, T] int64."""
    steps = len(every)
    return ((happened * every)[:, None, :] * torch.ones(steps, steps, dtype=torch.int64).tril()).amax(2)


@dataclass(frozen=True)
class SamplingSettings:
    """The settings in a chunk's rows. ``seed`` [B, T]: 0 keeps the last one; ``scale`` [B, T, 1]: factor of the logits;
    ``top`` [B, T, 1] or None: k of top-k sampling, less one; ``force`` [B, T, F]: forced tokens, -1 where a token is
    drawn; ``conditions``: name -> [B, T]."""

    seed: Tensor
    scale: Tensor
    top: Tensor | None
    force: Tensor
    conditions: Mapping[str, Tensor]


@dataclass(frozen=True)
class ControlColumns:
    """The columns of a generator's input: seed, temperature, ``top_k`` if it has one, conditions, and ``width`` columns
    ``force``. Zeros mean: keep the seed, take the most probable token, of all tokens, the first condition, nothing
    forced."""

    vocabulary: int
    width: int = 1
    top_k: bool = True
    conditions: Mapping[str, int] | None = None  # name -> number of its values

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
    """One token for each row [B, 1] int64: logits [B, V], draw, scale, top, force [B, 1]. Inverts the cumulative
    distribution: the first token whose cumulative probability is above the draw. A token of probability 0 is never
    drawn."""
    logits = (logits - logits.amax(1, keepdim=True)) * scale
    if top is not None:
        least = logits.topk(logits.shape[1], dim=1).values.gather(1, top)  # sorted, the largest first
        logits = torch.where(logits < least, -1e30, logits)
    total = logits.softmax(1).cumsum(1)
    token = (total <= draw * total[:, -1:]).sum(1, keepdim=True)
    return torch.where(force >= 0, force, token)


def log_prob(logits: Tensor, tokens: Tensor) -> Tensor:
    """[B, T, V], [B, T] -> [B, T]: the log-probability of each token at temperature 1, in nats."""
    return logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
