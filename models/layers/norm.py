"""Running normalisation by a stream's own mean and variance."""

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

    ``quiet``: frames in which nothing is heard, whose mean over the features is at most that, do not count; from 1
    above it on they count whole, and in between in part, so that the output stays continuous. A microphone that is off
    for an hour leaves the normaliser as it was. ``least``: the smallest variance, in units of the training data's: a
    steady noise varies by about .06, and divided by that it would look like speech, and speech after it like nothing.

    The recursion is linear in x, so a block of L frames is one product with a lower-triangular [L, L] matrix of weights
    ``W[t, s] = prod_{r=s+1..t} (1 - 1/n_r) / n_s``; it depends on the count alone. Blocks split where they may, the
    result is that of the recursion.
    """

    receptive_field = None

    def __init__(
        self, features: int, prior: int = 100, horizon: int = 3000, block: int = 64, *,
        quiet: float | None = None, least: float = 0.05,
    ) -> None:  # fmt: skip
        super().__init__()
        if not 1 < prior < horizon:
            raise ValueError("prior must lie between 1 and horizon")
        self.features, self.prior, self.horizon, self.block = features, prior, horizon, block
        self.quiet, self.least = quiet, least
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))
        self.register_buffer("lower", torch.ones(block, block).tril(), persistent=False)
        self.register_buffer("steps", torch.arange(1.0, block + 1.0), persistent=False)

    @torch.no_grad()
    def set_constants(self, features: Tensor) -> None:
        """Set the constants to mean and standard deviation of training data [..., F]."""
        axes = tuple(range(features.dim() - 1))
        self.mean.copy_(features.mean(axes))
        self.std.copy_(features.std(axes).clamp(min=0.1))

    def initial_state(self, batch: int) -> State:
        # three tensors of their own: an exporter would take aliases for one input
        shapes = {"count": 1, "mean": self.features, "square": self.features}
        return {name: torch.zeros(batch, size, device=self.mean.device) for name, size in shapes.items()}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        heard = None if self.quiet is None else (x.mean(dim=2) - self.quiet).clamp(0.0, 1.0)  # [B, T]
        x = (x - self.mean) / self.std
        count, mean, square = state["count"], state["mean"], state["square"]
        out = []
        for start in range(0, x.shape[1], self.block):
            part = slice(start, start + self.block)
            weight = None if heard is None else heard[:, part]
            y, count, mean, square = self._block(x[:, part], weight, count, mean, square)
            out.append(y)
        return torch.cat(out, 1) if len(out) > 1 else out[0], {"count": count, "mean": mean, "square": square}

    def _block(
        self, x: Tensor, heard: Tensor | None, count: Tensor, mean: Tensor, square: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        length = x.shape[1]
        lower = self.lower[:length, :length]
        counted = self.steps[:length] if heard is None else heard @ lower.T
        n = (self.prior + count + counted).clamp(max=float(self.horizon))  # [B, L]
        share = 1.0 / n if heard is None else heard / n
        decay = torch.log1p(-share) @ lower.T  # [B, L] log of the weight left of what was there before the block
        weights = (decay[:, :, None] - decay[:, None, :]).clamp(max=0.0).exp() * lower * share[:, None, :]
        kept = decay.exp()[:, :, None]
        means = weights @ x + kept * mean[:, None]
        # the second moment of standardised data is 1, so its deviation from 1 starts at zero
        squares = weights @ (x.square() - 1.0) + kept * square[:, None]
        variance = (squares + 1.0 - means.square()).clamp(min=self.least)
        y = (x - means) * variance.rsqrt()
        # beyond the horizon the exact count no longer matters; holding it there keeps float32 exact for ever
        count = (count + (float(length) if heard is None else heard.sum(dim=1, keepdim=True))).clamp(
            max=float(self.horizon)
        )
        return y, count, means[:, length - 1], squares[:, length - 1]
