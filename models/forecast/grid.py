"""A grid of steps ahead, denser for near steps: values are tracked at its steps and interpolated between them.

The error of a forecast grows smoothly with the steps ahead, so the weights of a mixture and the widths of intervals are
tracked at these steps only, and interpolated linearly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["Grid", "grid"]


def grid(horizon: int) -> tuple[int, ...]:
    """The steps 1, 2, 3, 4, 6, 8, 12, 16, 24, ... and the horizon."""
    steps = sorted({2**k * part // 2 for k in range(16) for part in (2, 3)})
    return (*(step for step in steps if step < 0.9 * horizon), horizon)


class Grid(nn.Module):
    """A delay line: ``channels`` numbers are pushed for each of the S steps of the grid, and are due when that step has
    come.

    The state ``line`` [B, L] holds the numbers by age, newest first; of each age only the steps that are still ahead.
    """

    def __init__(self, horizon: int, channels: int) -> None:
        super().__init__()
        self.steps = grid(horizon)
        self.channels, count = channels, len(self.steps)
        at = torch.tensor(self.steps)
        self.register_buffer("at", at - 1, persistent=False)  # indices among all steps
        between = torch.zeros(horizon, count)
        for row in range(horizon):
            right = int(torch.searchsorted(at, row + 1))
            left = max(0, right - 1)
            share = 1.0 if left == right else (row + 1 - self.steps[left]) / (self.steps[right] - self.steps[left])
            between[row, left] += 1 - share
            between[row, right] += share
        self.register_buffer("between", between, persistent=False)  # [H, S]
        places: dict[tuple[int, int, int], int] = {}
        for age in range(horizon):
            for channel in range(channels):
                for number, step in enumerate(self.steps):
                    if step > age:
                        places[age, channel, number] = len(places)
        self.length = len(places)
        new = channels * count  # the new numbers are in front of the old ones
        moved = [
            channel * count + number if age == 0 else new + places[age - 1, channel, number]
            for age, channel, number in places
        ]
        due = [
            places[step - 1, channel, number] for channel in range(channels) for number, step in enumerate(self.steps)
        ]
        self.register_buffer("moved", torch.tensor(moved), persistent=False)
        self.register_buffer("places", torch.tensor(due), persistent=False)

    def due(self, line: Tensor) -> Tensor:
        """The numbers that were pushed for now, [B, channels, S]."""
        return line.index_select(1, self.places).reshape(-1, self.channels, len(self.steps))

    def say(self, line: Tensor, said: Tensor) -> Tensor:
        """The line after pushing ``said`` [B, channels, S]."""
        return torch.cat([said.flatten(1), line], 1).index_select(1, self.moved)
