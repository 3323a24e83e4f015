"""Quantiles around a forecast and the probability of a reading, calibrated while the stream runs.

An interval is the forecast plus quantiles of its past residuals, in units of their running size, times the restlessness
of the last day. The quantiles follow the subgradient of the pinball loss of the intervals that were *issued*: the
quantiles issued ``h`` readings ago for now are compared with the current reading, so that the long-run coverage is the
nominal one for any forecasts (Gibbs and Candes 2021, arXiv 2106.00170; for several steps ahead, delayed).

Without residuals the width is that of a random walk at the sensor's pace; its weight decreases with each residual.

The tail of the size of one-step residuals is tracked the same way. It gives the probability of a reading: how often the
sensor was at least that far from its forecast.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.forecast.normalise import LIMIT
from models.layers import State, Streaming

#: Shares of one-step residuals that are larger than the tail's marks.
TAIL = (0.5, 0.2, 0.05, 0.01, 0.001, 0.0001)
#: The share of itself by which a mark moves when a residual passes it. Marks that are seldom passed move farther.
HASTE = (0.02, 0.02, 0.05, 0.2, 0.5, 0.5)
SMALLEST = 1e-9
MANY = 1e6  # residuals that are counted, at most: float32 still counts them exactly
#: Mean size of a normal deviate, in deviations. First widths are wider by ``EARLY`` over the number of readings, since
#: the pace is estimated from few.
NORMAL, EARLY = 0.8, 4.0


@dataclass(frozen=True)
class Adaptation:
    """The rates of adaptation. ``step``: of the quantiles, in units of the residuals' size; ``size``: share of one
    reading in that size; ``day`` and ``season``: half-lives, in readings, of two averages of residuals, whose ratio has
    restlessness as its root; ``prior``: the number of residuals that the random walk's width counts for, one step ahead
    (times the root of the steps for more, since their residuals overlap)."""

    step: float = 0.02
    size: float = 0.003
    day: float = 24.0
    season: float = 1000.0
    prior: float = 3.0


class Calibration(Streaming):
    """``forward(mean [B, H], value [B, 1], known [B, H], count [B, 1], scale [B, 1], pace [B, 1], state)``: quantiles
    [B, H, Q], probability [B, 1] of the current reading (1 where it had no forecast), drift [B, 1] (recent residuals
    over usual ones: 1 means no drift), state. ``pace``: the root mean square of differences between readings."""

    receptive_field = None

    def __init__(self, horizon: int, levels: tuple[float, ...], pace: Adaptation) -> None:
        super().__init__()
        self.horizon, self.pace = horizon, pace
        self.register_buffer("levels", torch.tensor(levels), persistent=False)
        self.register_buffer("gauss", math.sqrt(2) * torch.erfinv(2 * self.levels - 1), persistent=False)
        ahead = torch.arange(1, horizon + 1, dtype=torch.float32)
        self.register_buffer("reach", ahead.sqrt(), persistent=False)  # deviation of a random walk
        self.register_buffer("prior", pace.prior * ahead.sqrt(), persistent=False)
        self.register_buffer("tail", torch.tensor(TAIL), persistent=False)
        self.register_buffer("haste", torch.tensor(HASTE), persistent=False)
        self.register_buffer("normal", math.sqrt(2) * torch.erfinv(1 - self.tail.double()).float(), persistent=False)
        self.register_buffer("decades", self.tail.log(), persistent=False)

    def initial_state(self, batch: int) -> State:
        horizon, count = self.horizon, len(self.levels)
        return {
            "given": torch.zeros(batch, horizon, horizon),  # means issued 1 to H readings ago, newest first
            "issued": torch.zeros(batch, horizon, horizon, count),  # quantiles, likewise
            "restless": torch.zeros(batch, horizon),  # restlessness, likewise
            "seen": torch.zeros(batch, horizon),  # number of residuals so far, by steps ahead
            "size": torch.zeros(batch, horizon),  # mean size of residuals, by steps ahead
            "tracked": torch.zeros(batch, horizon, count),
            "late": torch.zeros(batch, 1),
            "usual": torch.zeros(batch, 1),
            "marks": torch.zeros(batch, len(TAIL)),
        }

    def forward(
        self, mean: Tensor, value: Tensor, known: Tensor, count: Tensor, scale: Tensor, pace: Tensor, state: State
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        given = torch.diagonal(state["given"], dim1=1, dim2=2)  # [B, H]: the means issued h readings ago for now
        residuals = ((value - given) / scale).clamp(-LIMIT, LIMIT)
        seen = (state["seen"] + known).clamp(max=MANY)
        usable = torch.maximum(1.0 / seen.clamp(min=1.0), torch.full_like(count, self.pace.size))
        sized = residuals.abs() / state["restless"].clamp(min=0.1)
        size = state["size"] + usable * known * (sized - state["size"])
        issued = torch.diagonal(state["issued"], dim1=1, dim2=2).transpose(1, 2)  # [B, H, Q]
        below = (value[:, :, None] < issued).to(value.dtype)
        tracked = state["tracked"] + self.pace.step * known[:, :, None] * (self.levels - below)
        tracked = tracked.clamp(-LIMIT, LIMIT)

        one, first = residuals[:, :1].abs(), known[:, :1]
        late = state["late"] + first * self._share(count, self.pace.day) * (one - state["late"])
        usual = state["usual"] + first * self._share(count, self.pace.season) * (one - state["usual"])
        drift = (late / usual.clamp(min=1e-6)).clamp(0.04, 64.0)
        drift = torch.where(usual > 1e-6, drift, torch.ones_like(drift))
        restless = drift.sqrt()
        probability, marks = self._probability(one, first, size[:, :1], state["restless"][:, :1], state["marks"])

        trust = seen / (seen + self.prior)
        walk = NORMAL * pace * self.reach * (1 + EARLY / count.clamp(min=1.0))
        spread = trust * scale * size * restless + (1 - trust) * walk
        quantiles = mean[:, :, None] + spread[:, :, None] * (1.25 * self.gauss + tracked)
        quantiles = quantiles.sort(dim=2).values  # quantiles that cross are rearranged (Chernozhukov et al. 2010)
        new = {
            "given": torch.cat([mean[:, None], state["given"][:, :-1]], 1),
            "issued": torch.cat([quantiles[:, None], state["issued"][:, :-1]], 1),
            "restless": torch.cat([restless, state["restless"][:, :-1]], 1),
            "size": size,
            "seen": seen,
            "tracked": tracked,
            "late": late,
            "usual": usual,
            "marks": marks,
        }
        return quantiles, probability, drift, new

    def _share(self, count: Tensor, half_life: float) -> Tensor:
        return torch.maximum(1.0 / count.clamp(min=1.0), torch.full_like(count, 1 - 0.5 ** (1 / half_life)))

    def _probability(
        self, one: Tensor, first: Tensor, size: Tensor, restless: Tensor, offsets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The probability [B, 1] of a one-step residual at least this large, and the updated offsets [B, K].

        The logarithm of the probability is linear between marks, and beyond the last one.
        """
        unit = (one / (size * restless.clamp(min=0.1)).clamp(min=1e-6)).clamp(max=1e4)  # [B, 1]
        marks = 1.25 * self.normal + offsets  # [B, K], ascending unless tracking has made them cross
        rising = [marks[:, :1].clamp(min=0.05)]
        for k in range(1, len(TAIL)):
            rising.append(torch.maximum(marks[:, k : k + 1], rising[-1] + 0.05))
        knots = torch.cat([torch.zeros_like(one), *rising], 1)  # [B, K + 1]
        heights = torch.cat([torch.zeros(1), self.decades])
        slopes = (heights[1:] - heights[:-1]) / (knots[:, 1:] - knots[:, :-1])  # [B, K]
        within = (torch.minimum(unit, knots[:, 1:]) - knots[:, :-1]).clamp(min=0.0)
        beyond = (unit - knots[:, -1:]).clamp(min=0.0) * slopes[:, -1:]
        height = (within * slopes).sum(1, keepdim=True) + beyond
        probability = torch.where(first > 0, height.clamp(min=math.log(SMALLEST)).exp(), torch.ones_like(one))
        above = (unit > marks).to(unit.dtype)
        moved = offsets + first * self.haste * marks.clamp(min=0.5) * (above - self.tail)
        return probability, moved.clamp(-LIMIT, 1e4)
