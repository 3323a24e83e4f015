"""A recurrence whose gates do not depend on the hidden state: trained in parallel over time, served step by step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State, Streaming


class MinGRU(Streaming):
    """x [B, T, C] -> h [B, T, hidden] (Feng et al. 2024, arXiv 2410.01201, algorithm 6, appendix B):

    ``h_t = (1 - z_t) h_{t-1} + z_t g(W_h x_t)``, ``z_t = sigmoid(W_z x_t)``, ``g(v) = v + 0.5`` above 0, else sigmoid.
    Gate and candidate depend on the input alone, so all steps are computed in one scan. Training uses logarithms, so
    that products of a thousand gates do not vanish; evaluation, and so the exported graph, uses the formula above. They
    differ by rounding. Gates are initialised to memories of 1 to ``longest`` steps (Tallec and Ollivier 2018, arXiv
    1804.11188): a gate that is half open forgets in ten steps. State: ``h`` [B, hidden].
    """

    receptive_field = None

    def __init__(self, channels: int, hidden: int, longest: int = 100) -> None:
        super().__init__()
        self.hidden = hidden
        self.mix = nn.Linear(channels, 2 * hidden)
        with torch.no_grad():
            self.mix.bias[:hidden] = -torch.linspace(0, math.log(longest), hidden)

    def initial_state(self, batch: int) -> State:
        return {"h": torch.zeros(batch, self.hidden, device=self.mix.weight.device)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        gate, candidate = self.mix(x).chunk(2, 2)
        h = scan(gate, candidate, state["h"]) if self.training else recur(gate, candidate, state["h"])
        return h, {"h": h[:, -1]}


def recur(gate: Tensor, candidate: Tensor, h: Tensor) -> Tensor:
    """The states [B, T, H], step by step, from ``gate`` and ``candidate`` [B, T, H] and the state ``h`` [B, H]."""
    z, new = gate.sigmoid(), torch.where(candidate >= 0, candidate + 0.5, candidate.sigmoid())
    out = []
    for t in range(gate.shape[1]):
        h = h + z[:, t] * (new[:, t] - h)
        out.append(h)
    return torch.stack(out, 1)


def scan(gate: Tensor, candidate: Tensor, h: Tensor) -> Tensor:
    """As :func:`recur`, for all steps at once: ``log h_t = A_t + log(sum_{s <= t} exp(log(z_s new_s) - A_s))``, where
    ``A`` is the running sum of ``log(1 - z)`` (Heinsen 2023, arXiv 2311.06281). Computed in float64, because ``A`` may
    be in the thousands and its differences are exponents."""
    dtype, gate, candidate, h = gate.dtype, gate.double(), candidate.double(), h.double()
    kept = F.logsigmoid(-gate).cumsum(1)
    new = torch.where(candidate >= 0, (candidate.relu() + 0.5).log(), F.logsigmoid(candidate))
    added = F.logsigmoid(gate) + new
    start = h.clamp(min=1e-30).log()[:, None]  # a new stream's state is 0
    total = torch.cat([start, added - kept], 1).logcumsumexp(1)
    return (kept + total[:, 1:]).exp().to(dtype)
