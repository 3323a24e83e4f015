"""Causal attention over a sliding window: the last keys and values are the state, with no unbounded counter.

Positions are relative: each head adds to its scores a learned bias for every distance in the window (Raffel et al.
2020, arXiv 1910.10683, without buckets), initialised to ALiBi's slopes (Press et al. 2022, arXiv 2108.12409). The bias
is a constant table of the graph, so a stream has no absolute position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming

#: Added to the scores of masked steps.
FAR = -1e9


class WindowAttention(Streaming):
    """x [B, T, C] -> [B, T, C]: step t attends to itself and the ``window - 1`` steps before it.

    State: ``past`` [B, window - 1, 2 C], keys and values of those steps, oldest first; ``seen`` [B, window - 1], 1
    where that step exists. The cost of a step does not depend on the stream's age: window x C products. Raises
    ``ValueError`` if ``heads`` does not divide ``channels``.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{channels} channels can't be divided among {heads} heads")
        self.channels, self.heads, self.window, self.receptive_field = channels, heads, window, window
        self.enter = nn.Linear(channels, 3 * channels)
        self.leave = nn.Linear(channels, channels)
        slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(window))  # [heads, distance]

    def initial_state(self, batch: int) -> State:
        past, device = self.window - 1, self.bias.device
        return {
            "past": torch.zeros(batch, past, 2 * self.channels, device=device),
            "seen": torch.zeros(batch, past, device=device),
        }

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        batch, steps, past = x.shape[0], x.shape[1], self.window - 1
        queries, news = self.enter(x).split((self.channels, 2 * self.channels), 2)
        whole = torch.cat([state["past"], news], 1)  # [B, past + T, 2 C]
        seen = torch.cat([state["seen"], torch.ones_like(x[:, :, 0])], 1)
        keys, values = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in whole.chunk(2, 2))
        queries = queries.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, heads, T, C / heads]
        # query t is key past + t; keys outside of its window get a score far below all others
        distance = past + torch.arange(steps)[:, None] - torch.arange(past + steps)  # [T, past + T]
        within = ((distance >= 0) & (distance <= past)).to(x.device)
        bias = torch.where(within, self.bias[:, distance.clamp(0, past)], FAR)  # [heads, T, past + T]
        scores = (queries * (self.channels // self.heads) ** -0.5) @ keys.transpose(2, 3)
        scores = scores + bias + FAR * (1 - seen[:, None, None])
        mixed = (scores.softmax(3) @ values).transpose(1, 2).reshape(batch, steps, self.channels)
        return self.leave(mixed), {"past": whole[:, steps:], "seen": seen[:, steps:]}
