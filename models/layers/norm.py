"""Normalisation by the running mean and variance of each stream."""

from __future__ import annotations

import torch
from torch import Tensor

from models.layers.base import State, Streaming


class RunningNorm(Streaming):
    """x [B, T, F] -> (x - mean) / std with the mean and variance of the stream so far.

    Frame t updates ``m <- m + (x_t - m) / n_t`` and likewise the second moment, with ``n_t = min(prior + t, horizon)``:
    an average at first, then an exponential average over ``horizon`` frames, so that a stream of years keeps adapting
    (and a float32 count stays exact). The constants of the training data (``mean``, ``std``) weigh as much as ``prior``
    frames, so that the first frame does not divide by zero. The state holds the *deviation* from those constants, so
    that it starts as zeros.

    ``quiet``: silent frames, whose mean over the features is at most ``quiet``, do not count; frames 1 or more above it
    count fully, those in between in part, so that the output is continuous. A microphone that is off for an hour does
    not change the normaliser. ``least``: the smallest variance, in units of the training data's: steady noise has about
    .06, and normalised by that it would look like speech, and the speech after it would be lost.

    The recursion is linear in x, so a block of L frames is one product with a lower-triangular [L, L] matrix of weights
    ``W[t, s] = prod_{r=s+1..t} (1 - 1/n_r) / n_s``, which depends on the count alone. The result does not depend on the
    split into blocks. Raises ``ValueError`` unless ``1 < prior < horizon``.
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
        """Set the constants to the mean and standard deviation of training data [..., F]."""
        axes = tuple(range(features.dim() - 1))
        self.mean.copy_(features.mean(axes))
        self.std.copy_(features.std(axes).clamp(min=0.1))

    def initial_state(self, batch: int) -> State:
        # three separate tensors: an exporter would merge aliases into one input
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
        decay = torch.log1p(-share) @ lower.T  # [B, L] log of the weight that the state before the block still has
        weights = (decay[:, :, None] - decay[:, None, :]).clamp(max=0.0).exp() * lower * share[:, None, :]
        kept = decay.exp()[:, :, None]
        means = weights @ x + kept * mean[:, None]
        # the second moment of standardised data is 1, so its deviation from 1 starts at zero
        squares = weights @ (x.square() - 1.0) + kept * square[:, None]
        variance = (squares + 1.0 - means.square()).clamp(min=self.least)
        y = (x - means) * variance.rsqrt()
        # beyond the horizon the count no longer matters; the limit keeps it exact in float32
        count = (count + (float(length) if heard is None else heard.sum(dim=1, keepdim=True))).clamp(
            max=float(self.horizon)
        )
        return y, count, means[:, length - 1], squares[:, length - 1]
