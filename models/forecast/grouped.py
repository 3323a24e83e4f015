"""Recursive least squares for many steps ahead, with late labels in groups of steps, at the cost of one step.

The label of step ``h`` comes ``h`` readings after its features. The steps of a group are learnt together when its last
label has come, from the same features. So each reading needs few rows of features, for any horizon, and everything is a
matrix product.

It must run for years in float32. The covariance stays exactly symmetric, because the update subtracts the outer product
of a vector with itself. Its mean eigenvalue is bounded (a stuck sensor excites nothing, and forgetting would inflate
it). It starts as zeros, and each reading adds to one block of the diagonal: in the first ``BLOCKS`` readings all of the
prior, later just enough that no direction is lost to rounding. A gain never overshoots: it takes the error to zero at
most (the scale may have moved since the covariance saw those features).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.forecast.normalise import WARM
from models.layers import State

#: Largest variance of a forecast, in units of the noise; the covariance is scaled down to it before an update.
NEWS = 1e3
#: Number of blocks of the diagonal; the prior is complete before the first label.
BLOCKS = WARM
#: Amount added to the diagonal for each reading, in units of the prior.
LITTLE = 1e-5


def groups(horizon: int) -> tuple[int, ...]:
    """The last step of each group: 1, 2, 3, 4, 6, 8, ... 24, 28, 32, ... and the horizon."""
    steps = {*range(1, 5), *range(6, 25, 2), *range(28, horizon, 4)}
    return (*sorted(step for step in steps if step < horizon), horizon)


class GroupedRls(nn.Module):
    """Recursive least squares for H = ``horizon`` labels of one set of F features, with one covariance.

    State: ``covariance`` [B, F, F], ``weights`` [B, F, H]. ``forget``: factor of the past with each reading.
    """

    def __init__(self, features: int, horizon: int, forget: float, prior: float = 1.0, bound: float = 1e4) -> None:
        super().__init__()
        self.features, self.horizon, self.forget, self.bound = features, horizon, forget, bound * prior
        self.prior = prior
        coordinate = torch.arange(features)
        rows = -(-features // BLOCKS)  # size of a block
        place = (coordinate % rows)[None] == torch.arange(rows)[:, None]
        self.register_buffer("place", place.float(), persistent=False)  # [rows, F]
        self.register_buffer("block", (coordinate // rows).float(), persistent=False)  # [F]
        self.register_buffer("diagonal", coordinate * (features + 1), persistent=False)
        edges = groups(horizon)
        step = torch.arange(1, horizon + 1)
        first = torch.tensor([0, *edges[:-1]])
        mine = (step > first[:, None]) & (step <= torch.tensor(edges)[:, None])
        self.register_buffer("mine", mine.float(), persistent=False)  # [G, H]

    def initial_state(self, batch: int) -> State:
        return {
            "covariance": torch.zeros(batch, self.features, self.features),
            "weights": torch.zeros(batch, self.features, self.horizon),
        }

    def forward(
        self, rows: Tensor, labels: Tensor, known: Tensor, fresh: Tensor, turn: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Update from the labels, then forecast [B, 1, H].

        ``rows`` [B, 1 + G, F]: features now, and those that the labels of each of G groups belong to; ``labels`` and
        ``known`` [B, 1, H]: labels, and 1 where they count. ``fresh`` [B, 1, 1]: 1 where the first row counts. ``turn``
        [B, 1]: the block of the diagonal that is added to; plus ``BLOCKS`` after the first round.
        """
        covariance, weights = state["covariance"], state["weights"]
        towards = rows @ covariance  # [B, 1 + G, F]
        reach = (rows * towards).sum(2, keepdim=True)
        # after a long silence the variance is so large that the difference below would be nothing but rounding
        news = NEWS / reach[:, :1].clamp(min=NEWS)
        mean = (
            covariance.flatten(1).index_select(1, self.diagonal).sum(1)[:, None, None] / self.features
        )  # of the eigenvalues
        within = self.bound / mean.clamp(min=self.bound)
        kept = news * within / self.forget
        part = (kept * news / (self.forget + reach[:, :1] * news)).sqrt()
        learnt = towards[:, :1] * (part * fresh)
        kept = kept * fresh + (1.0 - fresh)
        first = (turn < BLOCKS).to(turn.dtype)
        block = turn - BLOCKS * (1.0 - first)
        amount = first * self.prior**0.5 + (1.0 - first) * (LITTLE * BLOCKS * self.prior) ** 0.5
        added = ((self.block == block).to(turn.dtype) * amount)[:, None] * self.place  # [B, rows, F]
        left = torch.cat([learnt, -added], 1)
        covariance = covariance * kept - left.transpose(1, 2) @ torch.cat([learnt, added], 1)

        said = rows @ weights  # [B, 1 + G, H]
        gains = towards[:, 1:] / reach[:, 1:].clamp(min=1.0)
        errors = (labels - said[:, 1:]) * (known * self.mine)
        weights = weights + gains.transpose(1, 2) @ errors
        forecast = said[:, :1] + (rows[:, :1] @ gains.transpose(1, 2)) @ errors
        return forecast, {"covariance": covariance, "weights": weights}
