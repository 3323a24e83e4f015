"""The probability of a reading, from its distance from the sensor's range so far and from the error of its forecast.

One-step residuals miss much of what people call an anomaly: after a shift of level the forecasts soon fit again, and a
missing daily peak gives no large residual. So three values are watched: the reading, its distance from the mean of its
hour of the day, and the recent average of that distance. The range of each so far is state (it shrinks over tens of
thousands of readings). The novelty of a reading is its distance outside of these ranges, the largest of the three, in
units of the range. An eye judges a plot the same way, and no distribution of the sensor is needed: over a hundred
sensors and processes of every kind, records of one size are equally rare (see ``python -m bench nab``, and the tests).
A new range counts at once, and a reading that is less novel than one reported just before is not reported again.

Numenta's detector does the same for values alone (Lavin and Ahmad 2015, arXiv 1510.03336: a reading outside of the
range so far by 5 % of it is an anomaly, whatever its network says).
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.forecast.normalise import WARM
from models.layers import State, Streaming

HOURS = 24
#: Number of readings over which the mean of an hour of the day is taken, at most.
VISITS = 100.0
#: Half-life, in readings, of the recent average of distances from the hour's mean.
LATE = 12.0
#: A range shrinks by 1 / ``MEMORY`` of itself with each reading.
MEMORY = 20_000.0
#: Ranges of distances count as at least this share of the readings' range.
SHARE = 0.25
#: A reading outside by less than this share of the range is not novel.
SLACK, UNIT = 0.01, 0.1
#: Half-life, in readings, of earlier reports (state ``told``).
QUIET = 50.0
#: The share of readings that are novel at all, after ``AGED`` readings; before, it is higher by the power of the age.
RATE, AGED, POWER = 0.002, 4000.0, 0.8
#: The share of readings with a novelty above r is ``RATE`` over (1 + r / BEND) squared.
BEND = 0.3
#: A residual of probability r below this counts as ``USUAL * (r / USUAL) ** (1 / 3)``: at a probability of a tenth of
#: ``USUAL``, residuals give a thousandth of the reports that they give at ``USUAL``. The rest is left for novelty.
USUAL = 0.01


class Novelty(Streaming):
    """``forward(value [B, 1], there [B, 1], day [B, 1], scale [B, 1], residual [B, 1], state)``: probability [B, 1] of
    the reading, and the state; float64. ``day``: time of day in [0, 1). ``scale``: running deviation of the readings,
    never zero. ``residual``: probability of a one-step residual at least as large; 1 without a residual."""

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
        # a spike of any size at most triples the range, so that it does not hide later anomalies
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
        """The probability that a reading is as novel, or its residual as improbable, as the rarer of the two."""
        novel = torch.where(news > 0, rate / (news.clamp(min=0.0) * (1 / BEND) + 1.0).square(), 1.0)
        let = torch.maximum(residual, USUAL ** (2 / 3) * residual ** (1 / 3))
        rarer = torch.minimum(novel, let)
        # the cube inverts the root above, for residuals; novelty adds at most its own rate
        return (torch.minimum(rarer, rarer**3 * USUAL**-2) + torch.minimum(rarer, rate)).clamp(max=1.0)
