"""Running normalisation: a stream's own mean and variance, learnt while it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.base import State, Streaming


class RunningNorm(Streaming):
    """x [B, T, F] -> (x - mean) / std with the mean and variance of everything the stream has shown so far.

    Frame t updates ``m <- m + (x_t - m) / n_t`` and likewise the second moment, with ``n_t = min(prior + t, horizon)``:
    an average at first, an exponential average of ``horizon`` frames from then on, so that a stream which runs for
    years keeps adapting (and a float32 count never stops counting). The constants of the training data (``mean``,
    ``std``) weigh as much as ``prior`` frames, so that the first frame is no division by zero. The state keeps the
    *deviation* from those constants: zero bytes are the right start.

    The recursion is linear in x, so a block of L frames is one product with a lower-triangular [L, L] matrix of weights
    ``W[t, s] = prod_{r=s+1..t} (1 - 1/n_r) / n_s``; it depends on the count alone. Blocks split where they may, the
    result is that of the recursion.
    """

    receptive_field = None

    def __init__(self, features: int, prior: int = 100, horizon: int = 3000, block: int = 64) -> None:
        super().__init__()
        if not 1 < prior < horizon:
            raise ValueError("prior must lie between 1 and horizon")
        self.features, self.prior, self.horizon, self.block = features, prior, horizon, block
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("lower", torch.ones(block, block).tril(), persistent=False)
        self.register_buffer("steps", torch.arange(1.0, block + 1.0), persistent=False)

    def initial_state(self, batch: int) -> State:
        # three tensors of their own: an exporter would take aliases for one input
        shapes = {"count": 1, "mean": self.features, "square": self.features}
        return {name: torch.zeros(batch, size, device=self.mean.device) for name, size in shapes.items()}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x = (x - self.mean) / self.std
        count, mean, square = state["count"], state["mean"], state["square"]
        out = []
        for start in range(0, x.shape[1], self.block):
            y, count, mean, square = self._block(x[:, start : start + self.block], count, mean, square)
            out.append(y)
        return torch.cat(out, 1) if len(out) > 1 else out[0], {"count": count, "mean": mean, "square": square}

    def _block(self, x: Tensor, count: Tensor, mean: Tensor, square: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length = x.shape[1]
        lower = self.lower[:length, :length]
        n = (self.prior + count + self.steps[:length]).clamp(max=float(self.horizon))  # [B, L]
        decay = torch.log1p(-1.0 / n) @ lower.T  # [B, L] log of the weight left of what was there before the block
        weights = (decay[:, :, None] - decay[:, None, :]).clamp(max=0.0).exp() * lower / n[:, None, :]
        kept = decay.exp()[:, :, None]
        means = weights @ x + kept * mean[:, None]
        # the second moment of standardised data is 1, so its deviation from 1 starts at zero
        squares = weights @ (x.square() - 1.0) + kept * square[:, None]
        variance = (squares + 1.0 - means.square()).clamp(min=0.05)  # a silent stream must not be blown up to speech
        y = (x - means) * variance.rsqrt()
        # beyond the horizon the exact count no longer matters; holding it there keeps float32 exact for ever
        count = (count + float(length)).clamp(max=float(self.horizon))
        return y, count, means[:, length - 1], squares[:, length - 1]
