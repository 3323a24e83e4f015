"""Normalisation, so that one forecaster serves any sensor: running level, scale and pace; harmonics of the clock."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Harmonics of the day and of the week.
DAY_HARMONICS, WEEK_HARMONICS = 4, 2
#: Features and labels, in units of the sensor's scale, are clipped to this size: a spike must not dominate for weeks.
LIMIT = 20.0
#: Readings are clipped to this many usual distances from the level before they update the averages.
FAR = 100.0
#: The usual distance is this quantile of distances from the level; it changes by this share of itself a reading.
SHARE, PACE = 0.75, 0.1
#: Readings beyond this count as missing, because their squares overflow float32.
ABSURD = 1e15
#: Number of readings before anything is fitted or clipped, since that needs the scale.
WARM = 24


class Averages(NamedTuple):
    """The state of a stream's readings, all of one shape, zeros at the start: their number (``memory`` at most),
    running level and variance, usual distance from the level, mean square of successive differences, last reading."""

    count: Tensor
    level: Tensor
    variance: Tensor
    usual: Tensor
    squares: Tensor
    last: Tensor


def follow(reading: Tensor, there: Tensor, before: Averages, memory: float) -> tuple[Averages, Tensor, Tensor]:
    """Update by one ``reading``, which counts where ``there`` is 1 (elsewhere it may be anything but NaN). Returns the
    averages, the scale, which is never zero, and the difference to the reading before.

    The usual distance is a quantile, so it does not depend on the size of the largest: one reading in twenty may be a
    spike of any size, up or down, and the averages hardly move. If all spikes go one way, they pull the level along,
    and with it the usual distance; then one in a hundred is tolerated.
    """
    last = torch.where(there > 0, reading, before.last)
    change = torch.where(before.count > 0, last - before.last, torch.zeros_like(last))
    value = near(last, before)
    count = (before.count + there).clamp(max=memory)
    share = there / count.clamp(min=1.0)
    level = before.level + share * (value - before.level)
    variance = before.variance + share * ((value - level).square() - before.variance)
    # not "+ 1e-12": the exporter's optimiser drops an addition below 1e-8 as one of zero
    scale = torch.maximum(variance, 1e-12 * level.square()).clamp(min=1e-12).sqrt()
    larger = ((value - level).abs() > before.usual).to(value.dtype)
    factor = 1 + there * (larger * PACE - (1 - larger) * PACE * (1 - SHARE) / SHARE)
    least = torch.maximum(1e-6 * level.abs(), torch.full_like(level, 1e-6))
    usual = torch.where(count > WARM, torch.maximum(before.usual * factor, least), scale)
    far = FAR * scale
    squares = before.squares + share * (torch.minimum(torch.maximum(change, -far), far).square() - before.squares)
    return Averages(count, level, variance, usual, squares, last), scale, change


def near(value: Tensor, averages: Averages) -> Tensor:
    """The reading, clipped to ``FAR`` usual distances from the level."""
    far = torch.where(averages.count > WARM, FAR * averages.usual, torch.full_like(value, 1e15))
    return torch.minimum(torch.maximum(value, averages.level - far), averages.level + far)


def pace_of(squares: Tensor, scale: Tensor) -> Tensor:
    """The pace: root mean square of successive differences, a hundredth of the scale at least."""
    return torch.maximum(squares.clamp(min=1e-24).sqrt(), 0.01 * scale)


def harmonics(phase: Tensor, count: int) -> Tensor:
    """sin and cos of 1 to ``count`` times the angle of ``phase`` [..., 1] in [0, 1): [..., 2 * count]."""
    return _turns(phase * torch.arange(1, count + 1, dtype=phase.dtype))


def waves(clock: Tensor) -> Tensor:
    """Harmonics of the time of day, then of the week, [..., 12] of ``clock`` [..., 2] in [0, 1)."""
    times = torch.tensor([*range(1, DAY_HARMONICS + 1), *range(1, WEEK_HARMONICS + 1)], dtype=clock.dtype)
    which = [0] * DAY_HARMONICS + [1] * WEEK_HARMONICS
    return _turns(clock.clamp(0.0, 1.0)[..., which] * times)


def _turns(turns: Tensor) -> Tensor:
    """sin and cos of each of ``turns`` [..., N], side by side: [..., 2 N].

    Uses sums and products only (Taylor; error below 1e-5): a runtime's sine rounds differently at the end of an array,
    so that a result would depend on the other streams of the batch.
    """
    half = math.pi * (turns - turns.floor() - 0.5)[..., None]  # half the angle, less a quarter turn
    square = half * half
    found = torch.zeros_like(square)
    for k in range(6, -1, -1):  # of sin h / h and cos h, both at once
        sign = (-1.0) ** k
        found = found * square + torch.tensor([sign / math.factorial(2 * k + 1), sign / math.factorial(2 * k)])
    s, c = found[..., :1] * half, found[..., 1:]
    # sin(2h + pi) = -2 sin h cos h, cos(2h + pi) = 2 sin^2 h - 1
    return torch.cat([-2.0 * s * c, 2.0 * s * s - 1.0], -1).flatten(-2)
