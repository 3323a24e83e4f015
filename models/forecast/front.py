"""The front end of a forecaster of one sensor: running level, scale and pace, and detection of doubtful readings.

A reading that is far outside of all that a sensor has shown, and far from the median of its last readings, is in doubt
(the identifier of Hampel 1974, without looking ahead). It moves nothing here, and the forecaster treats it as missing,
until the sensor stays there: when most of the last readings are like it, the median is, too. Of the first readings
nothing is known, so the averages are those of the ones near their median, taken again with each reading.

All of this is float64, in the sensor's own unit: the rest of a model has readings relative to ``origin``, as float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Readings from here on are missing: what is relative to them must be float32, differences too.
LARGEST = 1e36
#: Last readings whose median is taken; so many of them may be wrong and leave it right.
WINDOW = 11
#: In doubt is what lies outside of the range so far by this share of it, and this many times as far from the median as
#: half of the last readings are, and as the sensor moves from one reading to the next.
OUTSIDE, APART, JUMP = 1.0, 6.0, 20.0
#: Among the first ``WINDOW`` readings, this many times as far as half of them; the more, the fewer there are.
FIRST = 8.0
#: Doubts count less by this with every reading; when they would be more than so many, there is no doubt: it often does.
FORGIVE, MOST_DOUBTS = 0.995, 20.0
#: The range shrinks by one part in so many with each reading.
MEMORY = 20_000.0
#: Smallest change of a reading that counts: this share of it, or this much.
SMALLEST_SHARE, SMALLEST = 1e-15, 1e-36
#: The last origin is left when readings are this many paces away.
MOVES = 1024.0


class FrontAverages(NamedTuple):
    """The kept state of a stream's readings, float64 [..., 1] each, zeros at the start. ``count``: of those without a
    doubt, ``memory`` at most. ``level`` and ``variance``: running. ``squares``: mean square of differences from one to
    the next. ``last``: without a doubt. ``low`` and ``high``: range, which ``memory`` shrinks; ``least`` and ``most``:
    range that is kept for longer. ``readings``: all, ``memory`` at most. ``doubts``: recent ones. ``doubted``: 1 if the
    last one was. ``run``: steps since the last without a doubt. ``origin``: what readings are relative to. ``recent``
    [..., WINDOW]: newest first."""

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
        """Of ``packed`` [..., PACKED]."""
        return cls(*packed.split([1] * (len(cls._fields) - 1) + [WINDOW], -1))

    def packed(self) -> Tensor:
        return torch.cat(self, -1)

    def turned(self, signs: Tensor) -> FrontAverages:
        """Those of the same readings times ``signs`` [..., 1], 1 or -1."""
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


#: Numbers of an :class:`FrontAverages`.
PACKED = len(FrontAverages._fields) - 1 + WINDOW


class Followed(NamedTuple):
    """``sure``: 1 where there is a reading without a doubt, float64 [..., 1], as all. ``scale``: never zero.
    ``change``: from the last reading without a doubt to this one, 0 without one. ``median``: of the last
    readings. ``moved``: of the origin, but for ``jump``: of the level, where the sensor has gone elsewhere."""

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
    """One more reading, float64 [..., 1], which counts where ``there`` is 1; elsewhere it may be anything but NaN.
    ``expected``: what it was forecast as, before which a sensor that has gone elsewhere was; the last reading."""
    here = there > 0
    readings = (before.readings + there).clamp(max=memory)
    recent = torch.where(here, torch.cat([reading, before.recent[..., :-1]], -1), before.recent)
    live = torch.arange(WINDOW, dtype=reading.dtype) < readings
    middle = (readings * 0.5).long().clamp(0, WINDOW // 2)  # whatever a broken state holds, the place is one
    median = _ranked(recent, live, middle)
    distance = (recent - median).abs()
    usual = _ranked(distance, live, middle)
    early = readings <= WINDOW

    # the first readings, all of them again
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

    # later on
    width = OUTSIDE * (before.most - before.least)
    apart = (reading - median).abs()
    beyond = (reading > before.most + width) | (reading < before.least - width)
    far = apart > torch.maximum(torch.maximum(APART * usual, JUMP * before.squares.sqrt()), least_change)
    like = (reading - before.recent[..., :1]).abs() <= 0.5 * apart  # the one before
    often = (before.doubts > MOST_DOUBTS - 1.0) & like
    odd = (early & (inside[..., :1] <= 0)) | (~early & beyond & far & ~often)
    sure = torch.where(odd, 0.0, there)
    doubted = torch.where(here, there - sure, before.doubted)
    doubts = torch.where(here, before.doubts * FORGIVE + doubted, before.doubts)

    known = sure > 0
    run = torch.where(known, 0.0, (before.run + 1.0).clamp(max=memory))
    last = torch.where(known, reading, before.last)
    # a sensor that has gone elsewhere for good is what it was, but for its level
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
    """Of those of ``values`` [..., W] that are ``live`` the one of this ``rank`` [..., 1], from 0 for the smallest."""
    sorted_ = torch.where(live, values, 1e300).sort(-1).values
    return torch.where(live[..., :1], torch.gather(sorted_, -1, rank), 0.0)


def pace_of(squares: Tensor, scale: Tensor) -> Tensor:
    """How far a sensor moves from one reading to the next; a hundredth of its scale at least."""
    return torch.maximum(squares.sqrt(), 0.01 * scale)
