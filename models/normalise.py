"""What makes one forecaster serve any sensor: running level, scale and pace, and the harmonics of the clock."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Harmonics of the day and of the week.
DAY_HARMONICS, WEEK_HARMONICS = 4, 2
#: Features and labels, in units of the sensor's scale, are cut to this range: a spike must not rule for weeks.
LIMIT = 20.0
#: Readings farther from the level, in scales, move the averages as one that far does.
FAR = 100.0
#: Readings before anything is fitted or cut: the scale must be known.
WARM = 24


def running(
    value: Tensor, there: Tensor, count: Tensor, level: Tensor, variance: Tensor, memory: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Running averages after one more reading, which counts where ``there`` is 1: count, level, variance, and the scale
    that is never zero. All of one shape."""
    far = FAR * scale_of(level, variance)
    far = torch.where(count > WARM, far, torch.full_like(far, 1e15))
    count = (count + there).clamp(max=memory)
    share = there / count.clamp(min=1.0)
    level = level + share * torch.minimum(torch.maximum(value - level, -far), far)
    offset = torch.minimum(torch.maximum(value - level, -far), far)
    variance = variance + share * (offset.square() - variance)
    return count, level, variance, scale_of(level, variance)


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
