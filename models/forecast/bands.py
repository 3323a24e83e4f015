"""Quantiles around a forecast and the probability of a reading, calibrated while the stream runs.

An interval is the forecast plus quantiles of its past residuals, in units of their running size, times the restlessness
of the last day. The quantiles follow the subgradient of the pinball loss of those residuals, so that the long-run
coverage is the nominal one for any forecasts (Gibbs and Candes 2021, arXiv 2106.00170). All of it is tracked at the
steps of a :class:`models.forecast.grid.Grid`.

Without residuals the width is that of a random walk at the sensor's pace; its weight decreases with each residual.

A reading in doubt counts as outside of the interval, but widens nothing.

The tail of the size of one-step residuals is tracked the same way. It gives the probability of a reading: how often the
sensor was at least that far from its forecast. Readings in doubt count here, so that frequent ones are not improbable.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.forecast.calibration import EARLY, HASTE, MANY, NORMAL, SMALLEST, TAIL, Adaptation
from models.forecast.normalise import LIMIT
from models.layers import State

#: The marks of the tail are at least this far apart, in units of the residuals' size.
APART = 0.05


class Bands(NamedTuple):
    """``offsets`` [B, S, Q] from the mean to each quantile, ascending, and their ``spread`` [B, S], in the sensor's
    unit; ``restless`` [B, 1]: root of ``drift``; ``probability`` [B, 1] of the current reading, 1 where it had no
    forecast; ``drift`` [B, 1]: recent residuals over usual ones, 1 means no drift."""

    offsets: Tensor
    spread: Tensor
    restless: Tensor
    probability: Tensor
    drift: Tensor


class Residuals(NamedTuple):
    """The residuals of the current reading's forecasts, at the steps of the grid. ``off`` [B, S]: the reading less the
    mean, in the sensor's unit; ``spread`` and ``restless`` [B, S]: those of the forecasts; ``known`` [B, S]: 1 where
    there are a reading and a forecast of it; ``sure`` [B, 1]: 0 where the reading is in doubt or missing.

    ``surprise`` [B, 1]: size of the one-step residual whose probability is wanted, where ``asked`` [B, 1] is 1;
    ``move`` [B, 1]: the size that later ones are compared with."""

    off: Tensor
    spread: Tensor
    restless: Tensor
    known: Tensor
    sure: Tensor
    surprise: Tensor
    move: Tensor
    asked: Tensor


class Calibrated(nn.Module):
    """``forward(residuals, count, scale, pace, state) -> (bands, state)``; ``count``, ``scale`` and ``pace`` [B, 1].
    ``pace``: the root mean square of differences between readings. State: ``seen`` [B, S]: number of residuals so far;
    ``grid`` [B, 1 + Q, S]: their size, and the tracked quantiles; ``tail`` [B, 5 + K]: size of recent and of usual
    one-step residuals; both again, with readings in doubt; their size in units of restlessness; offsets of the marks.
    """

    def __init__(self, steps: tuple[int, ...], levels: tuple[float, ...], pace: Adaptation) -> None:
        super().__init__()
        self.count, self.pace, self.quantiles = len(steps), pace, len(levels)
        at = torch.tensor(levels)
        self.register_buffer("levels", at[:, None], persistent=False)
        self.register_buffer("gauss", 1.25 * math.sqrt(2) * torch.erfinv(2 * at - 1)[:, None], persistent=False)
        ahead = torch.tensor(steps, dtype=torch.float32)
        self.register_buffer("reach", NORMAL * ahead.sqrt(), persistent=False)  # mean size of a random walk's move
        self.register_buffer("prior", pace.prior * ahead.sqrt(), persistent=False)
        tail = torch.tensor(TAIL)
        self.register_buffer("tail", tail, persistent=False)
        self.register_buffer("haste", torch.tensor(HASTE), persistent=False)
        normal = 1.25 * math.sqrt(2) * torch.erfinv(1 - tail.double()).float()
        self.register_buffer("normal", normal, persistent=False)
        heights = torch.cat([torch.zeros(1), tail.log()])
        self.register_buffer("rises", heights[1:] - heights[:-1], persistent=False)
        number = torch.arange(len(TAIL))
        above = torch.where(number[:, None] >= number, APART * (number[:, None] - number), -1e9)
        self.register_buffer("above", above.float(), persistent=False)
        lives = torch.tensor([*2 * [1 - 0.5 ** (1 / pace.day), 1 - 0.5 ** (1 / pace.season)]])
        self.register_buffer("lives", lives, persistent=False)

    def initial_state(self, batch: int) -> State:
        return {
            "seen": torch.zeros(batch, self.count),
            "grid": torch.zeros(batch, 1 + self.quantiles, self.count),
            "tail": torch.zeros(batch, 5 + len(TAIL)),
        }

    def forward(self, now: Residuals, count: Tensor, scale: Tensor, pace: Tensor, state: State) -> tuple[Bands, State]:
        size, tracked = state["grid"].split([1, self.quantiles], 1)
        size = size[:, 0]
        learnt = now.known * now.sure
        residuals = (now.off / scale).clamp(-LIMIT, LIMIT).abs()
        surprise, move = (now.surprise / scale).clamp(max=LIMIT), (now.move / scale).clamp(max=LIMIT)
        seen = (state["seen"] + learnt).clamp(max=MANY)
        usable = (1.0 / seen.clamp(min=1.0)).clamp(min=self.pace.size)
        size = size + usable * learnt * (residuals / now.restless.clamp(min=0.1) - size)
        size = size.clamp(max=10 * LIMIT)  # only a broken state holds more
        # the quantiles that the reading was below, in units of the forecast's spread
        inside = now.off / now.spread.clamp(min=1e-37)
        below = (inside[:, None] < self.gauss + tracked).to(inside.dtype)
        tracked = tracked + (self.pace.step * now.known)[:, None] * (self.levels - below)
        tracked = tracked.clamp(-LIMIT, LIMIT)

        averages, offsets = state["tail"].split([5, len(TAIL)], 1)
        few = 1.0 / count.clamp(min=1.0)
        restless = _restless(averages[:, 2:3], averages[:, 3:4])  # before this reading, with those in doubt
        one, first = residuals[:, :1], now.asked
        sizes = torch.cat([one, one, move, move, move / restless], 1)
        heard = torch.cat([learnt[:, :1], learnt[:, :1], first, first, first], 1)
        shares = torch.cat([torch.maximum(few, self.lives), usable[:, :1]], 1)
        averages = averages + heard * shares * (sizes - averages)
        units = torch.cat([surprise, move], 1) / (averages[:, 4:] * restless).clamp(min=1e-6)
        probability, offsets = self._probability(units.clamp(max=1e4), first, offsets)
        restless = _restless(averages[:, :1], averages[:, 1:2])

        trust = seen / (seen + self.prior)
        walk = (pace * (1 + EARLY * few)) * self.reach
        spread = trust * size * (scale * restless) + (1 - trust) * walk
        ends = (spread[:, None] * (self.gauss + tracked)).transpose(1, 2)
        ends = ends.sort(dim=2).values  # quantiles that cross are rearranged (Chernozhukov et al. 2010)
        new = {
            "seen": seen,
            "grid": torch.cat([size[:, None], tracked], 1),
            "tail": torch.cat([averages, offsets], 1),
        }
        return Bands(ends, spread, restless, probability, restless.square()), new

    def _probability(self, units: Tensor, known: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The probability [B, 1] of a one-step residual at least this large, and the updated offsets [B, K].

        The logarithm of the probability is linear between marks, and beyond the last one. ``units`` [B, 2]: surprise
        and move, in units of the residuals' size.
        """
        unit, move = units.split(1, 1)
        marks = self.normal + offsets  # [B, K], ascending unless tracking has made them cross
        rising = (marks.clamp(min=APART)[:, None] + self.above).amax(2)
        knots = torch.cat([torch.zeros_like(unit), rising], 1)  # [B, K + 1]
        low, high = knots[:, :-1], knots[:, 1:]
        slopes = self.rises / (high - low)
        within = (torch.minimum(unit, high) - low).clamp(min=0.0)
        beyond = (unit - high[:, -1:]).clamp(min=0.0) * slopes[:, -1:]
        height = (within * slopes).sum(1, keepdim=True) + beyond
        probability = height.clamp(min=math.log(SMALLEST)).exp() * known + (1.0 - known)
        above = (move > marks).to(unit.dtype)
        moved = offsets + (known * self.haste) * marks.clamp(min=0.5) * (above - self.tail)
        return probability, moved.clamp(-LIMIT, 1e4)


def _restless(late: Tensor, usual: Tensor) -> Tensor:
    drift = (late / usual.clamp(min=1e-6)).clamp(0.04, 64.0)
    return torch.where(usual > 1e-6, drift, torch.ones_like(drift)).sqrt()
