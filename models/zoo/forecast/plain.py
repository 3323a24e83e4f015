"""The inputs of the zoo's forecasters: the running averages of :mod:`models.forecast.normalise`, in float32.

Unlike in :mod:`models.forecast.front`, no reading is in doubt: each counts. The zoo's trained files depend on this.
"""

from __future__ import annotations

import torch
from torch import Tensor

from models.forecast.forecasting import ForecastBatch, Segments
from models.forecast.network import compressed
from models.forecast.normalise import LIMIT, Averages, follow, pace_of, waves


def inputs(after: Averages, scale: Tensor, change: Tensor, there: Tensor, waves: Tensor, memory: float) -> Tensor:
    """The network's input [..., 5 + clock], from the results of :func:`models.forecast.normalise.follow` [..., 1]:
    distance from the level and difference to the reading before, in units of the pace; mask; number of readings so far
    over ``memory``; scale over pace; harmonics ``waves`` [..., clock]."""
    pace = pace_of(after.squares, scale)
    above, step, spread = (after.last - after.level) / pace, change / pace, scale / pace
    return torch.cat([compressed(above), compressed(step), there, after.count / memory, compressed(spread), waves], -1)


class PlainSegments(Segments):
    """:class:`Segments` with the inputs of this module."""

    def histories(self) -> list[Tensor]:
        """For each sensor the :class:`Averages` before every reading, [N, 6]."""
        longest = max(len(sensor.values) for sensor in self.sensors)
        values = torch.full((len(self.sensors), longest), float("nan"))
        for row, sensor in zip(values, self.sensors, strict=True):
            row[: len(sensor.values)] = torch.from_numpy(sensor.values)
        now = Averages(*torch.zeros(len(Averages._fields), len(self.sensors)))
        out = torch.zeros(longest, len(self.sensors), len(now))
        for t in range(longest):
            out[t] = torch.stack(now, 1)
            now, _, _ = follow(values[:, t].nan_to_num(), (~values[:, t].isnan()).float(), now, self.options.memory)
        return [out[: len(sensor.values), i] for i, sensor in enumerate(self.sensors)]

    def prepared(self, values: Tensor, phases: Tensor, start: Tensor, signs: Tensor) -> ForecastBatch:
        before = Averages(*start.unbind(1))
        before = before._replace(level=before.level * signs, last=before.last * signs)
        return prepare(values, phases, before, self.horizon, self.options.memory)


def prepare(values: Tensor, phases: Tensor, before: Averages, horizon: int, memory: float) -> ForecastBatch:
    """The batch of ``values`` [B, T + H] with NaN and ``phases`` [B, T, 2]. ``before`` [B] each: the averages before
    the first reading."""
    length = phases.shape[1]
    there = (~values.isnan()).float()
    beat = waves(phases)
    rows, held, paces = [], [], []
    now = before
    for t in range(length):
        now, scale, change = follow(values[:, t].nan_to_num(), there[:, t], now, memory)
        columns = Averages(*(x[:, None] for x in now))
        rows.append(inputs(columns, scale[:, None], change[:, None], there[:, t, None], beat[:, t], memory))
        held.append(now.last)
        paces.append(pace_of(now.squares, scale))
    base, pace = torch.stack(held, 1), torch.stack(paces, 1)
    ahead = values.unfold(1, horizon, 1)[:, 1 : length + 1]  # [B, T, H]
    reach = torch.arange(1, horizon + 1).sqrt()
    labels = ((ahead - base[..., None]) / pace[..., None]).clamp(-LIMIT * reach, LIMIT * reach)
    known = ~labels.isnan() & (there[:, :length, None] > 0)
    return ForecastBatch(torch.stack(rows, 1), labels.nan_to_num(), known)
