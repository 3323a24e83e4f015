"""Recurrent stacks with residual connections and layer norm; their states are batch-first, as in all layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming, inner, outer

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class Recurrent(Streaming):
    """One recurrent layer [B, T, in] -> [B, T, hidden]. States ``h`` (and ``c``) are [B, 1, H], not PyTorch's
    [1, B, H]. Raises ``ValueError`` for a ``cell`` that is not in :data:`CELLS`."""

    receptive_field = None

    def __init__(self, cell: str, features: int, hidden: int) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell {cell!r}: one of {', '.join(CELLS)}")
        self.cell, self.hidden = cell, hidden
        self.rnn = CELLS[cell](features, hidden, batch_first=True)

    def initial_state(self, batch: int) -> State:
        zeros = torch.zeros(batch, 1, self.hidden, device=self.rnn.weight_hh_l0.device)
        return {"h": zeros, "c": zeros.clone()} if self.cell == "lstm" else {"h": zeros}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        h = state["h"].transpose(0, 1).contiguous()
        if self.cell == "lstm":
            y, (h, c) = self.rnn(x, (h, state["c"].transpose(0, 1).contiguous()))
            return y, {"h": h.transpose(0, 1), "c": c.transpose(0, 1)}
        y, h = self.rnn(x, h)
        return y, {"h": h.transpose(0, 1)}


class RecurrentStack(Streaming):
    """[B, T, features] -> [B, T, hidden]: layers of ``x <- x + dropout(rnn(layer_norm(x)))``, then a layer norm; before
    them a projection if the widths differ."""

    receptive_field = None

    def __init__(self, cell: str, features: int, hidden: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.enter = nn.Linear(features, hidden) if features != hidden else nn.Identity()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.layers = nn.ModuleList(Recurrent(cell, hidden, hidden) for _ in range(layers))
        self.drop = nn.Dropout(dropout)
        self.leave = nn.LayerNorm(hidden)

    def initial_state(self, batch: int) -> State:
        state: State = {}
        for i, layer in enumerate(self.layers):
            state |= outer(layer.initial_state(batch), str(i))
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        new: State = {}
        x = self.enter(x)
        for i, (norm, layer) in enumerate(zip(self.norms, self.layers, strict=True)):
            y, part = layer(norm(x), inner(state, str(i)))
            new |= outer(part, str(i))
            x = x + self.drop(y)
        return self.leave(x), new
