"""The probability of a reading, by its distance from the sensor's range so far, and by the error of its forecast.

Residuals of one step say little of what people call an anomaly: a level that shifts is soon forecast again, and a
daily peak that stays out is no surprise from one reading to the next. So three things are watched: the reading, its
distance from the mean of its hour of the day, and the late average of that. Of each the range that it has shown so far
is kept (it shrinks, but in tens of thousands of readings), and a reading is as novel as it lies outside of one of them,
in units of that range. That is the size which an eye sees in a plot, and it needs no distribution of the sensor's own:
of a hundred sensors and processes of every kind, records of a size are equally rare (see ``python -m bench nab``, and
the tests). A new range is learnt at once, and a reading that is less novel than one reported just before is not
reported again.

The same is done in Numenta's detector for values alone (Lavin and Ahmad 2015, arXiv 1510.03336: a reading outside of
the range so far, and 5 % of it, is an anomaly, whatever its network says).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.forecast.normalise import WARM
from models.layers import State, Streaming

HOURS = 24
#: Readings of an hour of the day over which its mean is taken, at most.
VISITS = 100.0
#: Half-life, in readings, of the late average of distances from the hour's mean.
LATE = 12.0
#: A range shrinks by one part in so many with each reading.
MEMORY = 20_000.0
#: Ranges of distances are taken for at least this share of the readings' range.
SHARE = 0.25
#: What lies outside by less than this share of the range is not novel; by ``UNIT`` more, it counts as one nat.
SLACK, UNIT = 0.01, 0.1
#: Half-life, in readings, of earlier reports (state ``told``).
QUIET = 50.0
#: Of readings at the age of ``AGED``, this share is novel at all; before, more are by the power of the age.
RATE, AGED, POWER = 0.002, 4000.0, 0.8
#: The share that is novel by more than r is that, divided by (1 + r / BEND) squared.
BEND = 0.3
#: Of the least probable residuals, fewer are let through the less probable they are: at a tenth of ``USUAL`` a
#: thousandth of those that are at ``USUAL``. The rest of the probability is for what is novel.
USUAL = 0.01


class Novelty(Streaming):
    """``forward(value [B, 1], there [B, 1], day [B, 1], scale [B, 1], residual [B, 1], state)``: probability [B, 1] of
    the reading. ``day``: time of day in [0, 1). ``scale``: running deviation of the readings, never zero.
    ``residual``: probability of a one-step residual at least as large; 1 without a residual."""

    receptive_field = None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hours", torch.arange(HOURS, dtype=torch.float64), persistent=False)

    def initial_state(self, batch: int) -> State:
        sizes = {"age": (1,), "means": (HOURS,), "visits": (HOURS,), "late": (1,), "shown": (2, 3), "told": (1,)}
        return {name: torch.zeros(batch, *size, dtype=torch.float64) for name, size in sizes.items()}

    def forward(
        self, value: Tensor, there: Tensor, day: Tensor, scale: Tensor, residual: Tensor, state: State
    ) -> tuple[Tensor, State]:
        shown = state["shown"]
        age = (state["age"] + there).clamp(max=AGED)
        part = 1.0 / age.clamp(min=1.0)
        warm = age > WARM
        width = torch.maximum(shown.sum(1, keepdim=True), scale[:, None])  # [B, 1, 3]
        # a spike of any size widens the range to its threefold at most, so that it does not hide what comes after it
        ends = shown[:, :, :1] + width[:, :, :1]
        bound = torch.maximum(torch.minimum(value, ends[:, 0]), -ends[:, 1])
        tame = torch.where(warm, bound, value)

        hour = there * (self.hours == (day * HOURS).floor()).to(value.dtype)  # [B, HOURS]
        visits = (hour * state["visits"]).sum(1, keepdim=True)
        above = tame - (hour * state["means"]).sum(1, keepdim=True)
        distance = above * visits.clamp(max=1.0)  # none at the first visit
        means = state["means"] + hour * (above / (visits + 1.0).clamp(max=VISITS))
        late = state["late"] + part.clamp(min=1 - 0.5 ** (1 / LATE)) * (distance - state["late"])

        now = torch.cat([tame, distance, late], 1)[:, None]
        now = torch.cat([now, -now], 1)  # [B, 2, 3]
        unit = torch.maximum(width, SHARE * width[:, :, :1])
        outside = ((now - shown) / unit).amax((1, 2))[:, None]
        novel = (outside * (1 / UNIT) + (1 - SLACK / UNIT)).clamp(min=1.0).log()
        novel = torch.where(age > 2 * WARM, novel * there, 0.0)
        reported = state["told"] * 0.5 ** (1 / QUIET)

        wider = torch.maximum(shown - width * (0.5 / MEMORY), now)
        wider = torch.where(warm[:, None], wider, now)
        new = {
            "age": age,
            "means": means,
            "visits": (state["visits"] + hour).clamp(max=VISITS),
            "late": late,
            "shown": torch.where(there[:, :, None] > 0, wider, shown),
            "told": torch.maximum(reported, novel),
        }
        return self._probability(novel - reported, residual, RATE * AGED**POWER * part**POWER), new

    def _probability(self, news: Tensor, residual: Tensor, rate: Tensor) -> Tensor:
        """How often a reading is so novel, or its residual so improbable, as the rarer of both is."""
        novel = torch.where(news > 0, rate / (news.clamp(min=0.0) * (1 / BEND) + 1.0).square(), 1.0)
        let = torch.maximum(residual, USUAL ** (2 / 3) * residual ** (1 / 3))
        rarer = torch.minimum(novel, let)
        # of residuals the cube, as it was before its root was taken, and no more than the rate of what is novel
        return (torch.minimum(rarer, rarer**3 * USUAL**-2) + torch.minimum(rarer, rate)).clamp(max=1.0)
