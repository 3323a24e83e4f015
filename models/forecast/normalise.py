"""Normalisation, with which one forecaster serves any sensor: running level, scale and pace, and clock harmonics."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Harmonics of the day and of the week.
DAY_HARMONICS, WEEK_HARMONICS = 4, 2
#: Features and labels, in units of the sensor's scale, are cut to this range: a spike must not rule for weeks.
LIMIT = 20.0
#: Readings farther from the level move the averages as one that far does, in units of the usual distance from it.
FAR = 100.0
#: Of distances from the level, this share is not larger than the usual one; which follows by so much of itself.
SHARE, PACE = 0.75, 0.1
#: Readings beyond this are no readings: in float32 their squares are no numbers.
ABSURD = 1e15
#: Readings before anything is fitted or cut: the scale must be known.
WARM = 24


class Averages(NamedTuple):
    """The kept state of a stream's readings, all of one shape, zeros at the start: their number (``memory``
    at most), running level and variance, usual distance from the level, mean square of the differences between
    readings, and the last reading."""

    count: Tensor
    level: Tensor
    variance: Tensor
    usual: Tensor
    squares: Tensor
    last: Tensor


def follow(reading: Tensor, there: Tensor, before: Averages, memory: float) -> tuple[Averages, Tensor, Tensor]:
    """One more reading, which counts where ``there`` is 1 (elsewhere it may be anything but NaN): the averages after
    it, the scale, which is never zero, and the difference to the reading before.

    The usual distance is a quantile, so that nothing is known by it of how far the farthest are: one reading in twenty
    may be a spike of any size, up or down, and the averages hardly move. Where they all go one way, they drag the level
    along, and with it what is usual: one in a hundred is what is borne then.
    """
    last = torch.where(there > 0, reading, before.last)
    change = torch.where(before.count > 0, last - before.last, torch.zeros_like(last))
    value = near(last, before)
    count = (before.count + there).clamp(max=memory)
    share = there / count.clamp(min=1.0)
    level = before.level + share * (value - before.level)
    variance = before.variance + share * ((value - level).square() - before.variance)
    # not "+ 1e-12": the exporter's optimiser takes an addition below 1e-8 for one of zero, and drops it
    scale = torch.maximum(variance, 1e-12 * level.square()).clamp(min=1e-12).sqrt()
    larger = ((value - level).abs() > before.usual).to(value.dtype)
    factor = 1 + there * (larger * PACE - (1 - larger) * PACE * (1 - SHARE) / SHARE)
    least = torch.maximum(1e-6 * level.abs(), torch.full_like(level, 1e-6))
    usual = torch.where(count > WARM, torch.maximum(before.usual * factor, least), scale)
    far = FAR * scale
    squares = before.squares + share * (torch.minimum(torch.maximum(change, -far), far).square() - before.squares)
    return Averages(count, level, variance, usual, squares, last), scale, change


def near(value: Tensor, averages: Averages) -> Tensor:
    """The reading, or where it is far out the point that far from the level."""
    far = torch.where(averages.count > WARM, FAR * averages.usual, torch.full_like(value, 1e15))
    return torch.minimum(torch.maximum(value, averages.level - far), averages.level + far)


def pace_of(squares: Tensor, scale: Tensor) -> Tensor:
    """How far a sensor moves from one reading to the next; a hundredth of its scale at least."""
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

    By sums and products alone (Taylor; error below 1e-5): a runtime's own sine rounds differently at the end of an
    array, so that it would depend on who shares the batch.
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
