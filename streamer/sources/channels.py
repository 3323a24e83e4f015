"""Downmixing several channels to one, and float samples to int16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streamer.sources import SourceError

__all__ = ["CHANNELS", "Channel", "Mixer", "scale_of", "to_int16"]

Channel = Literal["left", "right", "mix"]
CHANNELS: tuple[Channel, ...] = ("left", "right", "mix")

#: Channels cancel each other if their sum has less than this share of the power that unrelated channels would have.
CANCELS = 0.1
#: Mean square above which a block is not silence.
HEARD = 1e-6
#: The mixer switches to another channel only if it is louder by this factor: two in antiphase are equally loud.
LOUDER = 4.0
#: Peaks up to here are overshoots, for example of an MP3 decoder: they clip.
OVERSHOOT = 2.0
#: Full scales of integer samples that were stored as floats.
FULL = (2.0**15, 2.0**23, 2.0**31)


def to_int16(mono: NDArray[np.float32]) -> NDArray[np.int16]:
    """float32 [samples] in [-1, 1] to int16; louder samples clip."""
    pcm: NDArray[np.int16] = np.clip(np.rint(mono * 32768.0), -32768, 32767).astype(np.int16)
    return pcm


def scale_of(peak: float) -> float:
    """The divisor for samples with this peak. Raises :class:`SourceError` if no known full scale fits."""
    if peak <= OVERSHOOT:
        return 1.0
    if peak <= 64:
        return peak
    for full in FULL:
        if peak <= full:
            return full
    raise SourceError(f"holds float samples up to {peak:.3g}, which are on no scale: full scale is 1")


class Mixer:
    """Mixes ``channels`` to one. ``wanted``: the channel, or ``None`` for the mean, or the loudest channel where the
    mean would cancel out.

    ``say``: called once, when the choice is not the mean. Raises :class:`SourceError` for a channel that does not
    exist.
    """

    def __init__(self, channels: int, rate: int, wanted: Channel | None, say: Callable[[str], None]) -> None:
        if wanted == "right" and channels < 2:
            raise SourceError("has one channel: --channel right is for two")
        self._rate, self._wanted, self._say = rate, wanted, say
        self._taken = -1
        self._done = 0
        self._told = False
        if channels > 1:
            choice = "mixed down to one" if wanted in (None, "mix") else f"the {wanted} one is taken"
            say(f"{channels} channels, {choice}")

    def mono(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """``[samples, channels]`` to ``[samples]``."""
        at, self._done = self._done, self._done + len(block)
        if block.shape[1] == 1 or self._wanted == "left":
            return block[:, 0]
        if self._wanted == "right":
            return block[:, 1]
        mean: NDArray[np.float32] = block.mean(axis=1, dtype=np.float32)
        if self._wanted == "mix" or not self._cancels(block, mean):
            return mean
        if not self._told:
            self._told = True
            name = {0: "left", 1: "right"}.get(self._taken, f"number {self._taken + 1}")
            self._say(
                f"its channels cancel each other at {at / self._rate:.2f} s: where they do, the louder one "
                f"is taken, here the {name} (--channel left, right or mix)"
            )
        return block[:, self._taken]

    def _cancels(self, block: NDArray[np.float32], mean: NDArray[np.float32]) -> bool:
        power = block.var(axis=0, dtype=np.float64)
        if power.max() < HEARD or float(mean.var(dtype=np.float64)) >= CANCELS * power.sum() / len(power) ** 2:
            return False
        loudest = int(power.argmax())
        if self._taken < 0 or power[loudest] > LOUDER * power[self._taken]:
            self._taken = loudest
        return True
