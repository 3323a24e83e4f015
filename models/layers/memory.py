"""A ring of vectors, written one slot a step and read by attention (Luong et al. 2015); one step of a GRU.

When all slots are written, the oldest is overwritten, so the size of a stream's state does not depend on the length of
its phrase.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State


class RingMemory(nn.Module):
    """M = ``slots`` vectors of ``width`` for each stream. State: ``slots`` [B, M, width], ``count`` [B, 1] int64: the
    number of writes so far.

    Writing and reading are separate calls, whose order in a step the architecture chooses.
    """

    def __init__(self, slots: int, width: int) -> None:
        super().__init__()
        self.slots, self.width = slots, width
        self.query = nn.Linear(width, width, bias=False)

    def initial_state(self, batch: int) -> State:
        return {
            "slots": torch.zeros(batch, self.slots, self.width),
            "count": torch.zeros(batch, 1, dtype=torch.int64),
        }

    def clear(self, which: Tensor, state: State) -> State:
        """Empties the memories of streams where ``which`` [B, 1] bool is true."""
        return {
            "slots": torch.where(which[:, :, None], 0.0, state["slots"]),
            "count": torch.where(which, 0, state["count"]),
        }

    def write(self, value: Tensor, which: Tensor, state: State) -> State:
        """Writes ``value`` [B, width] to the next slot where ``which`` [B, 1] bool is true."""
        here = (torch.arange(self.slots) == state["count"] % self.slots) & which  # [B, M]
        slots = torch.where(here[:, :, None], value[:, None, :], state["slots"])
        return {"slots": slots, "count": state["count"] + which.long()}

    def read(self, query: Tensor, state: State) -> tuple[Tensor, Tensor]:
        """``query`` [B, width] -> the context [B, width], and the weight of each slot [B, M]; zeros if the memory is
        empty."""
        filled = torch.arange(self.slots) < state["count"]
        context, weights = self.attend(query[:, None], state["slots"], filled)
        return context[:, 0], weights[:, 0]

    def attend(self, queries: Tensor, slots: Tensor, filled: Tensor) -> tuple[Tensor, Tensor]:
        """Attention of ``queries`` [B, U, width] over ``slots`` [B, M, width] where ``filled`` [B, M] bool is true:
        contexts [B, U, width], weights [B, U, M]."""
        score = self.query(queries) @ slots.transpose(1, 2) / math.sqrt(self.width)
        score = torch.where(filled[:, None], score, -1e9)
        weights = torch.where(filled[:, None], score.softmax(2), 0.0)
        return weights @ slots, weights


def gru_step(gru: nn.GRU, x: Tensor, h: Tensor) -> Tensor:
    """One step of a one-layer GRU: [B, features], [B, H] -> [B, H]. PyTorch's order of gates: reset, update, new."""
    size = gru.hidden_size
    given = F.linear(x, gru.weight_ih_l0, gru.bias_ih_l0)
    again = F.linear(h, gru.weight_hh_l0, gru.bias_hh_l0)
    (gates, content), (kept, remembered) = given.split([2 * size, size], 1), again.split([2 * size, size], 1)
    reset, update = (gates + kept).sigmoid().split(size, 1)
    new = (content + reset * remembered).tanh()
    return new + update * (h - new)
