"""Recursive least squares with forgetting, as a layer whose weights are state; stable in float32 for years."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers import State

#: Largest variance of a forecast, in units of the noise; the covariance is scaled down to it before an update.
NEWS = 1e3


class Rls(nn.Module):
    """Recursive least squares for ``horizon`` labels of one set of features, all with one covariance.

    State: ``covariance`` [B, F, F] as its offset from the start ``prior * I``, ``weights`` [B, H, F].

    All sums run over the last axis, because ONNX Runtime sums over other axes in another order for a batch of one.
    """

    def __init__(self, features: int, horizon: int, forget: float, prior: float = 1.0, bound: float = 1e4) -> None:
        super().__init__()
        self.features, self.horizon, self.forget, self.bound = features, horizon, forget, bound * prior
        self.register_buffer("start", torch.eye(features) * prior, persistent=False)
        self.register_buffer("eye", torch.eye(features), persistent=False)

    def initial_state(self, batch: int) -> State:
        return {
            "covariance": torch.zeros(batch, self.features, self.features),
            "weights": torch.zeros(batch, self.horizon, self.features),
        }

    def forward(
        self, now: Tensor, past: Tensor, labels: Tensor, known: Tensor, fresh: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Update from the labels, then forecast [B, H].

        ``now`` [B, F]: features; ``past`` [B, H, F]: features of 1 to H readings ago, which ``labels`` [B, H] belong
        to; ``known`` [B, H]: 1 where a label counts; ``fresh`` [B, 1]: 1 where ``now`` counts.
        """
        old = self.start + state["covariance"]
        towards = (old @ now[:, :, None])[:, :, 0]  # [B, F]
        reach = (now * towards).sum(1)
        # after a long silence the variance is so large that the difference below would be nothing but rounding
        news = (NEWS / reach.clamp(min=NEWS))[:, None]
        towards, reach = towards * news, reach * news[:, 0]
        spread = self.forget + reach
        learnt = towards[:, :, None] * towards[:, None, :] / spread[:, None, None]
        seen = (old * news[:, :, None] - learnt) / self.forget
        seen = (seen + seen.transpose(1, 2)) / 2 + 1e-5 * self.start
        mean = (seen * self.eye).sum((1, 2)) / self.features  # of the eigenvalues
        seen = seen * (self.bound / mean.clamp(min=self.bound))[:, None, None]
        covariance = torch.where(fresh[:, :, None] > 0, seen, old)
        gains = past @ covariance  # [B, H, F]
        reach = (gains * past).sum(2)
        gains = gains / reach.clamp(min=1.0)[:, :, None]
        weights = state["weights"]
        errors = (labels - (past * weights).sum(2)) * known
        weights = weights + gains * errors[:, :, None]
        forecast = (weights * now[:, None]).sum(2)
        return forecast, {"covariance": covariance - self.start, "weights": weights}
