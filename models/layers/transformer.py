"""A Transformer encoder for endless streams: a step attends to its block of steps and a fixed number of steps before.

It has the shape of Whisper's encoder (Radford et al. 2022, arXiv 2212.04356), so that training can start from its
weights: two convolutions with GELU, added sinusoids, blocks with the norm in front, a last norm. Three changes make it
streaming: convolutions are causal, a step attends to its whole block (a chunk of sound) and to the ``past`` steps
before it, and positions repeat.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers.attention import FAR
from models.layers.base import State, Streaming, inner, outer
from models.layers.conv import CausalConv, StridedConv
from models.layers.residual import FeedForward, Residual

__all__ = ["BlockAttention", "TransformerStack"]

#: Steps until positions repeat: Whisper's 30 s, rounded down to a multiple of the recipes' blocks.
PERIOD = 1488
#: Blocks that share one matrix of scores in training.
TOGETHER = 16


class BlockAttention(Streaming):
    """x [B, T, C] -> [B, T, C]: a step attends to its whole block of ``block`` steps and to the ``past`` before it.

    T is a multiple of ``block``, except in the last chunk of a stream. State: ``past`` [B, past, 2 C], keys and values,
    oldest first; ``seen`` [B, past], 1 where that step exists. ``half``: all keys and values are rounded to float16,
    those of the current block too, so that the output does not depend on the split into chunks; not in training, where
    float16 gradients would vanish. Raises ``ValueError`` if ``heads`` does not divide ``channels``, or ``block`` does
    not divide ``past``.
    """

    def __init__(self, channels: int, heads: int, block: int, past: int, half: bool = False) -> None:
        super().__init__()
        if channels % heads or past % block:
            raise ValueError(f"{channels} channels for {heads} heads, {past} steps of past in blocks of {block}")
        self.channels, self.heads, self.block, self.past = channels, heads, block, past
        self.kind = torch.float16 if half else torch.float32
        self.receptive_field = block + past
        self.enter = nn.Linear(channels, 3 * channels)
        self.leave = nn.Linear(channels, channels)

    def initial_state(self, batch: int) -> State:
        device = self.leave.weight.device
        return {
            "past": torch.zeros(batch, self.past, 2 * self.channels, device=device, dtype=self.kind),
            "seen": torch.zeros(batch, self.past, device=device),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        batch, steps, _ = x.shape
        queries, news = self.enter(x).split((self.channels, 2 * self.channels), 2)
        if self.kind == torch.float16 and not self.training:
            news = news.half()
        whole = torch.cat([state["past"].to(news.dtype), news], 1)  # [B, past + T, 2 C]
        seen = torch.cat([state["seen"], torch.ones_like(x[:, :, 0], dtype=torch.float32)], 1)
        new = {"past": whole[:, steps:], "seen": seen[:, steps:]}
        if self.training:
            return self.leave(self._banded(queries, whole, seen)), new
        if short := -steps % self.block:
            whole, seen = nn.functional.pad(whole, (0, 0, 0, short)), nn.functional.pad(seen, (0, short))
            queries = nn.functional.pad(queries, (0, 0, 0, short))
        count, width = (steps + short) // self.block, self.past + self.block
        if count == 1:  # as in a daemon
            windows, there = whole.transpose(1, 2)[:, None], seen[:, None]
        else:
            windows, there = whole.unfold(1, width, self.block), seen.unfold(1, width, self.block)
        windows = windows.to(queries.dtype)
        keys, values = windows.unflatten(2, (2 * self.heads, -1)).chunk(2, 2)  # [B, blocks, heads, C / heads, width]
        queries = queries.reshape(batch, count, self.block, self.heads, -1).transpose(2, 3)
        scores = (queries * (self.channels // self.heads) ** -0.5) @ keys
        scores = scores + FAR * (1 - there[:, :, None, None])
        mixed = scores.softmax(4).to(values.dtype) @ values.transpose(3, 4)  # [B, blocks, heads, block, C / heads]
        mixed = mixed.transpose(2, 3).reshape(batch, count * self.block, self.channels)[:, :steps]
        return self.leave(mixed), new

    def _banded(self, queries: Tensor, whole: Tensor, seen: Tensor) -> Tensor:
        """The same [B, T, C] by masks, :data:`TOGETHER` blocks at a time, without a copy of the past for each block: a
        step of training on rows of several seconds takes a third less time."""
        keys, values = whole.to(queries.dtype).unflatten(2, (2 * self.heads, -1)).transpose(1, 2).chunk(2, 1)
        queries = queries.unflatten(2, (self.heads, -1)).transpose(1, 2) * (self.channels // self.heads) ** -0.5
        mixed = []
        for start in range(0, queries.shape[2], TOGETHER * self.block):
            asking = queries[:, :, start : start + TOGETHER * self.block]  # [B, heads, steps, C / heads]
            part = slice(start, start + asking.shape[2] + self.past)
            first = torch.arange(asking.shape[2], device=whole.device)[:, None] // self.block * self.block
            among = torch.arange(seen[:, part].shape[1], device=whole.device)
            band = (among >= first) & (among < first + self.past + self.block)
            far = FAR * (1 - band * seen[:, None, None, part])
            scores = asking @ keys[:, :, part].transpose(2, 3)
            mixed.append((scores + far.to(scores.dtype)).softmax(3).to(values.dtype) @ values[:, :, part])
        return torch.cat(mixed, 2).transpose(1, 2).flatten(2)


class Sinusoids(Streaming):
    """Adds sinusoids to [B, T, C], with a period of :data:`PERIOD` steps; training starts at a random step.

    After ``still`` silent blocks, each further block starts at position 0, so that speech after an hour of silence is
    read as in a new stream. ``heard`` [B, blocks]: 1 for a block with sound, ``None``: every block has sound.

    State: ``step`` [B, 1], the next position; ``still`` [B, 1], silent blocks so far, at most ``still``. A block's
    first angle is rotated by the angles within a block, which are constants. No table is looked up, so that a state of
    NaN affects its own stream only.
    """

    def __init__(self, channels: int, block: int, still: int) -> None:
        super().__init__()
        self.still = still
        rates = torch.exp(-math.log(10000.0) / (channels // 2 - 1) * torch.arange(channels // 2))
        within = torch.arange(block)[:, None] * rates
        self.block = block
        self.register_buffer("rates", rates, persistent=False)
        self.register_buffer("sine", within.sin(), persistent=False)  # [block, C / 2]
        self.register_buffer("cosine", within.cos(), persistent=False)

    def initial_state(self, batch: int) -> State:
        return {name: torch.zeros(batch, 1, device=self.rates.device) for name in ("step", "still")}

    def forward(self, x: Tensor, state: State, heard: Tensor | None = None) -> tuple[Tensor, State]:
        step, still, steps = state["step"], state["still"], x.shape[1]
        if self.training:
            step = torch.randint(PERIOD // self.block, step.shape, device=step.device) * float(self.block)
        each = []
        for number in range(-(-steps // self.block)):
            each.append(step)
            step = _round(step + float(min(self.block, steps - number * self.block)))
            if heard is not None:
                silent = 1.0 - heard[:, number : number + 1]
                still = ((still + 1.0) * silent).clamp(max=float(self.still))
                step = torch.where(still >= self.still, torch.zeros_like(step), step)
        starts = torch.cat(each, 1)  # [B, blocks]
        angles = starts[:, :, None, None] * self.rates
        sine, cosine = angles.sin(), angles.cos()
        both = torch.cat([sine * self.cosine + cosine * self.sine, cosine * self.cosine - sine * self.sine], 3)
        return x + both.flatten(1, 2)[:, :steps], {"step": step, "still": still}


def _round(step: Tensor) -> Tensor:
    return step - PERIOD * (step / PERIOD).floor()


class TransformerStack(Streaming):
    """Features [B, T, F] -> [B, T / 4, C]: a convolution, one with stride 2, and ``layers`` Transformer layers. Before
    layer ``merged`` each two neighbouring steps are replaced by their mean, which halves the work of the layers after
    it.

    ``block`` and ``past``: in steps of the output. ``heard`` [B, blocks]: as in :class:`Sinusoids`.
    """

    def __init__(
        self, features: int, channels: int, heads: int, layers: int, merged: int, block: int, past: int,
        dropout: float, half: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.channels, self.merged, self.block = channels, merged, block
        self.one = CausalConv(features, channels, 3)
        self.two = StridedConv(channels, channels, 3, 2)
        self.positions = Sinusoids(channels, 2 * block, past // block + 1)
        scales = [2 if number < merged else 1 for number in range(layers)]
        self.attention = nn.ModuleList(
            Residual(BlockAttention(channels, heads, scale * block, scale * past, half), channels, dropout)
            for scale in scales
        )
        self.forward_ = nn.ModuleList(Residual(FeedForward(channels, 4), channels, dropout) for _ in scales)
        self.norm = nn.LayerNorm(channels)
        self.stride = 4
        self.receptive_field = 3 + 2 * 2 + 4 * (block - 1) + sum(4 * past for _ in scales)

    def initial_state(self, batch: int) -> State:
        state = outer(self.one.initial_state(batch), "one") | outer(self.two.initial_state(batch), "two")
        state |= outer(self.positions.initial_state(batch), "positions")
        for number, layer in enumerate(self.attention):
            state |= outer(layer.initial_state(batch), f"attention.{number}")
        return state

    def forward(self, x: Tensor, state: State, heard: Tensor | None = None) -> tuple[Tensor, State]:
        new: State = {}
        for name, layer in (("one", self.one), ("two", self.two)):
            x, part = layer(x, inner(state, name))
            x = nn.functional.gelu(x, approximate="tanh")
            new |= outer(part, name)
        x, part = self.positions(x, inner(state, "positions"), heard)
        new |= outer(part, "positions")
        for number, (attention, forward) in enumerate(zip(self.attention, self.forward_, strict=True)):
            x = _merged(x) if number == self.merged else x
            x, part = attention(x, inner(state, f"attention.{number}"))
            new |= outer(part, f"attention.{number}")
            x, _ = forward(x, {})
        return self.norm(_merged(x) if self.merged == len(self.attention) else x), new


def _merged(x: Tensor) -> Tensor:
    """The means of neighbouring steps: [B, T, C] -> [B, T / 2, C]."""
    return x.unflatten(1, (-1, 2)).mean(2)
