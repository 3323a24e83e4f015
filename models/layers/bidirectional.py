"""A bidirectional LSTM with bounded latency: the whole past, and a fixed number of future steps.

Zhang et al. 2016 (arXiv 1510.08983, "latency-controlled BLSTM") run the backward direction over blocks of a fixed size
and some steps after each. Then a step's output depends on its place in the block, and chunks must be whole blocks. Here
each step is a block of its own: the backward direction starts from zeros ``ahead`` steps later and runs back to it.
That takes ``ahead`` times the arithmetic, for all steps of a chunk at once, and the output does not depend on the split
into chunks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming, outer
from models.layers.recurrent import Recurrent


class LookAhead(Streaming):
    """The backward direction. x [B, T, in] -> [B, T, hidden]; output t belongs to input t - ``ahead``: it is the hidden
    state of an LSTM that has read the inputs from t back to t - ``ahead``. State: the last ``ahead`` inputs; those
    before a stream's start are zeros.
    """

    def __init__(self, features: int, hidden: int, ahead: int) -> None:
        super().__init__()
        self.features, self.hidden, self.latency = features, hidden, ahead
        self.receptive_field = ahead + 1
        self.enter = nn.Linear(features, 4 * hidden)
        self.again = nn.Linear(hidden, 4 * hidden, bias=False)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(hidden**-0.5), hidden**-0.5)  # as PyTorch's own

    def initial_state(self, batch: int) -> State:
        if not self.latency:
            return {}
        return {"seen": torch.zeros(batch, self.latency, self.features, device=self.enter.weight.device)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = x.shape[1]
        seen = torch.cat([state["seen"], x], dim=1) if self.latency else x  # [B, ahead + T, in]
        entered = self.enter(seen)
        hidden, cell = lstm(entered[:, self.latency :])
        for k in range(self.latency - 1, -1, -1):
            hidden, cell = lstm(entered[:, k : k + steps] + self.again(hidden), cell)
        return hidden, {"seen": seen[:, steps:]} if self.latency else {}


def lstm(gates: Tensor, cell: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(hidden, cell) [..., H] of one step. ``gates`` [..., 4 H] before their nonlinearities: input, forget, content,
    output. ``cell``: of the step before, ``None`` for zeros."""
    enter, forget, content, leave = gates.chunk(4, dim=-1)
    new = enter.sigmoid() * content.tanh()
    if cell is not None:
        new = forget.sigmoid() * cell + new
    return leave.sigmoid() * new.tanh(), new


class Bidirectional(Streaming):
    """x [B, T, in] -> [B, T, 2 hidden], forward and backward concatenated; output t belongs to input t - ``latency``.

    State: of both directions, and the forward outputs that wait for the backward ones.
    """

    receptive_field = None

    def __init__(self, features: int, hidden: int, ahead: int) -> None:
        super().__init__()
        self.forth = Recurrent("lstm", features, hidden)
        self.back = LookAhead(features, hidden, ahead)
        self.hidden, self.latency = hidden, ahead

    def initial_state(self, batch: int) -> State:
        state = outer(self.forth.initial_state(batch), "forth") | outer(self.back.initial_state(batch), "back")
        if self.latency:
            state["waiting"] = torch.zeros(batch, self.latency, self.hidden, device=self.back.enter.weight.device)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = x.shape[1]
        forth, first = self.forth(x, {name: state[f"forth.{name}"] for name in ("h", "c")})
        back, second = self.back(x, {"seen": state["back.seen"]} if self.latency else {})
        new = outer(first, "forth") | outer(second, "back")
        if self.latency:
            late = torch.cat([state["waiting"], forth], dim=1)
            forth, new["waiting"] = late[:, :steps], late[:, steps:]
        return torch.cat([forth, back], dim=2), new
