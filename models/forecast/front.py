"""The front end of a forecaster of one sensor: running level, scale and pace, and detection of doubtful readings.

A reading that is far outside of the sensor's range so far, and far from the median of its last readings, is in doubt
(the identifier of Hampel 1974, without looking ahead). It changes no average, and the forecaster treats it as missing,
unless the sensor stays there: when most of the last readings are like it, so is the median. Among the first readings
there is no range yet: the averages are computed from those near their median, again with each reading.

All of this is float64, in the sensor's unit; the rest of a model has readings relative to ``origin``, as float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Readings from this size on count as missing, so that readings relative to the origin fit float32.
LARGEST = 1e36
#: Number of last readings of which the median is taken; it is right while fewer than half of them are wrong.
WINDOW = 11
#: A reading is in doubt if it is outside of the range so far by ``OUTSIDE`` times its width, and its distance from the
#: median is ``APART`` times the median distance of the last readings, and ``JUMP`` times the usual step.
OUTSIDE, APART, JUMP = 1.0, 6.0, 20.0
#: Among the first ``WINDOW`` readings: this many times the median distance, and more while there are few.
FIRST = 8.0
#: The count of doubts is multiplied by ``FORGIVE`` with every reading. A sensor that has reached ``MOST_DOUBTS`` often
#: behaves so: its readings are then not in doubt.
FORGIVE, MOST_DOUBTS = 0.995, 20.0
#: The range shrinks by 1 / ``MEMORY`` of itself with each reading.
MEMORY = 20_000.0
#: Smallest change that counts: this share of a reading, or this much.
SMALLEST_SHARE, SMALLEST = 1e-15, 1e-36
#: The origin moves when readings are this many paces away from it.
MOVES = 1024.0


class FrontAverages(NamedTuple):
    """The state of a stream's readings, float64 [..., 1] each, zeros at the start. ``count``: number of readings not in
    doubt, ``memory`` at most. ``level`` and ``variance``: running. ``squares``: mean square of successive differences.
    ``last``: the last reading not in doubt. ``low`` and ``high``: range, which shrinks with ``memory``; ``least`` and
    ``most``: a range that shrinks more slowly. ``readings``: number of all, ``memory`` at most. ``doubts``: recent
    number of readings in doubt. ``doubted``: 1 if the last reading was in doubt. ``run``: steps since the last reading
    not in doubt. ``origin``: readings are relative to it. ``recent`` [..., WINDOW]: last readings, newest first."""

    count: Tensor
    level: Tensor
    variance: Tensor
    squares: Tensor
    last: Tensor
    low: Tensor
    high: Tensor
    least: Tensor
    most: Tensor
    readings: Tensor
    doubts: Tensor
    doubted: Tensor
    run: Tensor
    origin: Tensor
    recent: Tensor

    @classmethod
    def of(cls, packed: Tensor) -> FrontAverages:
        """From ``packed`` [..., PACKED], the inverse of :meth:`packed`."""
        return cls(*packed.split([1] * (len(cls._fields) - 1) + [WINDOW], -1))

    def packed(self) -> Tensor:
        return torch.cat(self, -1)

    def turned(self, signs: Tensor) -> FrontAverages:
        """The averages of the same readings times ``signs`` [..., 1], 1 or -1."""
        up = signs > 0
        return self._replace(
            level=self.level * signs,
            last=self.last * signs,
            origin=self.origin * signs,
            recent=self.recent * signs,
            low=torch.where(up, self.low, -self.high),
            high=torch.where(up, self.high, -self.low),
            least=torch.where(up, self.least, -self.most),
            most=torch.where(up, self.most, -self.least),
        )


#: Numbers of a :class:`FrontAverages`.
PACKED = len(FrontAverages._fields) - 1 + WINDOW


class Followed(NamedTuple):
    """All float64 [..., 1]. ``sure``: 1 where there is a reading that is not in doubt. ``scale``: never zero.
    ``change``: from the last reading not in doubt to this one, 0 without both. ``median``: of the last readings.
    ``jump``: move of the level where the sensor has moved for good. ``moved``: move of the origin, without ``jump``."""

    after: FrontAverages
    sure: Tensor
    scale: Tensor
    change: Tensor
    median: Tensor
    moved: Tensor
    jump: Tensor


def follow(
    reading: Tensor, there: Tensor, before: FrontAverages, memory: float, expected: Tensor | None = None
) -> Followed:
    """Update by one ``reading``, float64 [..., 1]. It counts where ``there`` is 1; elsewhere it may be anything but
    NaN. ``expected``: its forecast, from which a jump is measured; by default the last reading."""
    here = there > 0
    readings = (before.readings + there).clamp(max=memory)
    recent = torch.where(here, torch.cat([reading, before.recent[..., :-1]], -1), before.recent)
    live = torch.arange(WINDOW, dtype=reading.dtype) < readings
    middle = (readings * 0.5).long().clamp(0, WINDOW // 2)  # in range even if the state is broken
    median = _ranked(recent, live, middle)
    distance = (recent - median).abs()
    usual = _ranked(distance, live, middle)
    early = readings <= WINDOW

    # the first readings: averages computed from all of them
    least_change = (SMALLEST_SHARE * median.abs()).clamp(min=SMALLEST)
    few = 1.0 + (6.0 / readings.clamp(min=1.0)) ** 4
    inside = (live & (distance <= FIRST * few * usual + least_change)).to(reading.dtype)
    number = inside.sum(-1, keepdim=True).clamp(min=1.0)
    off = (recent - median) * inside
    mean = median + off.sum(-1, keepdim=True) / number
    spread = ((recent - mean) * inside).square().sum(-1, keepdim=True) / number
    pairs = inside[..., 1:] * inside[..., :-1]
    moves = ((recent[..., 1:] - recent[..., :-1]) * pairs).square().sum(-1, keepdim=True)
    moves = moves * (number - 1.0) / (number * pairs.sum(-1, keepdim=True).clamp(min=1.0))
    lowest, highest = median + off.amin(-1, keepdim=True), median + off.amax(-1, keepdim=True)

    # later readings
    width = OUTSIDE * (before.most - before.least)
    apart = (reading - median).abs()
    beyond = (reading > before.most + width) | (reading < before.least - width)
    far = apart > torch.maximum(torch.maximum(APART * usual, JUMP * before.squares.sqrt()), least_change)
    like = (reading - before.recent[..., :1]).abs() <= 0.5 * apart  # as the reading before
    often = (before.doubts > MOST_DOUBTS - 1.0) & like
    odd = (early & (inside[..., :1] <= 0)) | (~early & beyond & far & ~often)
    sure = torch.where(odd, 0.0, there)
    doubted = torch.where(here, there - sure, before.doubted)
    doubts = torch.where(here, before.doubts * FORGIVE + doubted, before.doubts)

    known = sure > 0
    run = torch.where(known, 0.0, (before.run + 1.0).clamp(max=memory))
    last = torch.where(known, reading, before.last)
    # a sensor that has moved for good keeps all but its level
    gone = ~early & beyond & ~far & known & (before.doubted > 0)
    jump = torch.where(gone, reading - (before.last if expected is None else expected), 0.0)
    change = torch.where(known & (before.count > 0), reading - before.last, 0.0)
    count = (before.count + sure).clamp(max=memory)
    share = sure / count.clamp(min=1.0)
    stood, low, high = before.level + jump, before.low + jump, before.high + jump
    level = stood + share * (last - stood)
    variance = before.variance + share * ((last - level).square() - before.variance)
    squares = before.squares + torch.where(gone, 0.0, share) * (change.square() - before.squares)
    low = low + (level - low).clamp(min=0.0) / memory
    high = high - (high - level).clamp(min=0.0) / memory
    least = before.least + (level - before.least).clamp(min=0.0) / MEMORY
    most = before.most - (before.most - level).clamp(min=0.0) / MEMORY
    ends = [torch.minimum(low, last), torch.maximum(high, last), torch.minimum(least, last), torch.maximum(most, last)]

    origin = torch.where(before.readings > 0, before.origin + jump, torch.where(here, reading, 0.0))
    first = [
        number * (readings > 0),
        mean,
        spread,
        moves,
        torch.where(known, reading, torch.where(here, median, before.last)),
    ]
    first += [lowest, highest, lowest, highest]
    later = [count, level, variance, squares, last, *ends]
    chosen = torch.where(early, torch.cat(first, -1), torch.cat(later, -1)).split(1, -1)
    variance = chosen[2]
    least_change = (SMALLEST_SHARE * chosen[1].abs()).clamp(min=SMALLEST)
    scale = torch.maximum(variance.sqrt(), least_change)
    away = last - origin
    away = torch.where(known & (away.abs() > MOVES * torch.maximum(chosen[3].sqrt(), scale)), away, 0.0)
    moved = away.float().double()
    after = FrontAverages(*chosen, readings, doubts, doubted, run, origin + moved, recent)
    return Followed(after, sure, scale, change, median, moved, jump)


def _ranked(values: Tensor, live: Tensor, rank: Tensor) -> Tensor:
    """The value of ``rank`` [..., 1] (0: the smallest) among those of ``values`` [..., W] that are ``live``; 0 if none
    is."""
    sorted_ = torch.where(live, values, 1e300).sort(-1).values
    return torch.where(live[..., :1], torch.gather(sorted_, -1, rank), 0.0)


def pace_of(squares: Tensor, scale: Tensor) -> Tensor:
    """The pace: root mean square of successive differences, a hundredth of the scale at least."""
    return torch.maximum(squares.sqrt(), 0.01 * scale)
