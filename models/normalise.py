"""What makes one forecaster serve any sensor: running level, scale and pace, and the harmonics of the clock."""

from __future__ import annotations

import math

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
#: Readings before anything is fitted or cut: the scale must be known.
WARM = 24


def running(
    value: Tensor, there: Tensor, count: Tensor, level: Tensor, variance: Tensor, usual: Tensor, memory: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Running averages after one more reading, which counts where ``there`` is 1: count, level, variance, the usual
    distance from the level, and the scale that is never zero. All of one shape.

    The usual distance is a quantile, so that nothing is known by it of how far the farthest are: one reading in twenty
    may be a spike of any size, and the averages hardly move.
    """
    value = near(value, count, level, usual)
    count = (count + there).clamp(max=memory)
    share = there / count.clamp(min=1.0)
    level = level + share * (value - level)
    variance = variance + share * ((value - level).square() - variance)
    scale = scale_of(level, variance)
    larger = ((value - level).abs() > usual).to(value.dtype)
    factor = 1 + there * (larger * PACE - (1 - larger) * PACE * (1 - SHARE) / SHARE)
    least = torch.maximum(1e-6 * level.abs(), torch.full_like(level, 1e-6))
    usual = torch.where(count > WARM, torch.maximum(usual * factor, least), scale)
    return count, level, variance, usual, scale


def near(value: Tensor, count: Tensor, level: Tensor, usual: Tensor) -> Tensor:
    """The reading, or where it is far out the point that far from the level."""
    far = torch.where(count > WARM, FAR * usual, torch.full_like(usual, 1e15))
    return torch.minimum(torch.maximum(value, level - far), level + far)


def scale_of(level: Tensor, variance: Tensor) -> Tensor:
    # not "+ 1e-12": the exporter's optimiser takes an addition below 1e-8 for one of zero, and drops it
    return torch.maximum(variance, 1e-12 * level.square()).clamp(min=1e-12).sqrt()


def paced(change: Tensor, there: Tensor, count: Tensor, squares: Tensor, scale: Tensor) -> Tensor:
    """Running mean square of the differences between readings."""
    far = FAR * scale
    change = torch.minimum(torch.maximum(change, -far), far)
    return squares + there / count.clamp(min=1.0) * (change.square() - squares)


def pace_of(squares: Tensor, scale: Tensor) -> Tensor:
    """How far a sensor moves from one reading to the next; a hundredth of its scale at least."""
    return torch.maximum(squares.clamp(min=1e-24).sqrt(), 0.01 * scale)


def harmonics(phase: Tensor, count: int) -> Tensor:
    """sin and cos of 1 to ``count`` times the angle of ``phase`` [..., 1] in [0, 1): [..., 2 * count].

    By sums and products alone (Taylor, then addition theorems; error below 1e-5): a runtime's own sine rounds
    differently at the end of an array, so that it would depend on who shares the batch.
    """
    half = math.pi * (phase.clamp(0.0, 1.0) - 0.5)  # half the angle, less a quarter turn
    square = half * half
    s, c, sine, cosine = half, torch.ones_like(half), half, torch.ones_like(half)
    for k in range(1, 7):
        c = c * square * (-1.0 / ((2 * k - 1) * (2 * k)))
        s = s * square * (-1.0 / ((2 * k) * (2 * k + 1)))
        sine, cosine = sine + s, cosine + c
    # sin(2h + pi) = -2 sin h cos h, cos(2h + pi) = 2 sin^2 h - 1
    first = (-2.0 * sine * cosine, 2.0 * sine * sine - 1.0)
    waves = [first]
    for _ in range(count - 1):
        s, c = waves[-1]
        waves.append((s * first[1] + c * first[0], c * first[1] - s * first[0]))
    return torch.cat([wave for pair in waves for wave in pair], -1)
