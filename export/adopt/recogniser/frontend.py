"""Log-mel features as in Kaldi and NeMo, from 16-bit PCM: in NumPy for a whole recording, in a graph by chunks.

Frames have 25 ms, every 10 ms, and are centred in their 10 ms (Kaldi's ``snip_edges=false``): frame i begins at sample
``shift * i + (shift - length) / 2``. The samples before the first one are its mirror image. The features match those of
the package kaldi-native-fbank, except at the end of a recording: a frame that lacks samples waits for them, and they
are silence, where Kaldi has another mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.ops import Ops

__all__ = ["KINDS", "Frontend"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Frontend:
    """``rate``: Hz. ``bins``: size of the mel filter bank, from ``low`` to ``high`` Hz; a ``high`` of 0 or less is
    relative to the Nyquist frequency.

    ``scale``: factor of the samples. ``window``: ``povey`` or ``hann`` (periodic). ``centred``: each frame's mean is
    subtracted. ``mel``: the scale of ``kaldi`` (triangles in mel), or of ``slaney`` (triangles in Hz, of one area).
    """

    rate: int = 16000
    bins: int = 80
    scale: float = 1 / 32768
    window: str = "povey"
    centred: bool = True
    preemphasis: float = 0.97
    low: float = 20.0
    high: float = -400.0
    mel: str = "kaldi"

    # -- sizes, in samples ---------------------------------------------------------------------------------------------

    @property
    def shift(self) -> int:
        return self.rate // 100

    @property
    def length(self) -> int:
        return self.rate // 40

    @property
    def fft(self) -> int:
        return 1 << (self.length - 1).bit_length()

    @property
    def early(self) -> int:
        """Number of samples by which the first frame begins before the first sample."""
        return (self.length - self.shift) // 2

    @property
    def carry(self) -> int:
        """Number of samples that a call keeps for the next one: those of its last frame, which is incomplete, and those
        before it."""
        return self.shift + self.early

    # -- tables --------------------------------------------------------------------------------------------------------

    @cached_property
    def shape(self) -> NDArray[np.float64]:
        """The window, [length]."""
        at = np.arange(self.length)
        if self.window == "hann":
            return 0.5 - 0.5 * np.cos(2 * np.pi * at / self.length)
        return (0.5 - 0.5 * np.cos(2 * np.pi * at / (self.length - 1))) ** 0.85

    @cached_property
    def bank(self) -> NDArray[np.float64]:
        """The mel filter bank [fft / 2 + 1, bins], for power spectra."""
        nyquist = self.rate / 2
        high = self.high if self.high > 0 else nyquist + self.high
        to_mel, to_hz = (_mel, _hz) if self.mel == "kaldi" else (_slaney, _slaney_hz)
        edges = np.linspace(to_mel(np.asarray(self.low)), to_mel(np.asarray(high)), self.bins + 2)
        at = np.arange(self.fft // 2 + 1) * (self.rate / self.fft)
        if self.mel == "kaldi":
            at = to_mel(at)
            at[-1] = np.inf  # Kaldi leaves the Nyquist frequency out
        else:
            edges = to_hz(edges)
        left, middle, right = edges[:-2], edges[1:-1], edges[2:]
        up, down = (at[:, None] - left) / (middle - left), (right - at[:, None]) / (right - middle)
        weights = np.maximum(0.0, np.minimum(up, down))
        return weights if self.mel == "kaldi" else weights * (2 / (right - left))

    # -- in NumPy ------------------------------------------------------------------------------------------------------

    def features(self, pcm: NDArray[np.int16]) -> NDArray[np.float32]:
        """Features [frames, bins] of ``pcm`` [N], for frames that have all their samples; computed in float64."""
        sound = np.concatenate([pcm[: self.early][::-1], pcm]).astype(np.float64) * self.scale
        count = max(0, (len(sound) - self.length) // self.shift + 1)
        at = np.arange(count)[:, None] * self.shift + np.arange(self.length)
        frames = sound[at]
        if self.centred:
            frames = frames - frames.mean(axis=1, keepdims=True)
        frames = frames - self.preemphasis * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        power = np.abs(np.fft.rfft(frames * self.shape, self.fft)) ** 2
        return np.log(np.maximum(power @ self.bank, np.finfo(np.float32).eps)).astype(np.float32)

    # -- in a graph ----------------------------------------------------------------------------------------------------

    def rows(
        self, ops: Ops, pcm: ir.Value, before: ir.Value, begins: ir.Value | None, count: int
    ) -> tuple[ir.Value, ir.Value]:
        """int16 ``pcm`` [B, count * shift] and the samples ``before`` it [B, carry] -> rows [B, count, bins], and the
        samples to keep for the next call. ``begins`` bool [B, 1]: this is a stream's first call, so the mirror image
        precedes it; ``None``: ``before`` always does.

        The first row of call c is frame ``count * c - 1``; the first call has no such frame.
        """
        if begins is not None:
            image = ops("Gather", pcm, ops.constant(np.arange(self.early)[::-1]), axis=1)
            mirrored = ops.join(ops.cut(before, 0, self.shift, 1), image, axis=1)
            before = ops.choose(begins, mirrored, before, "int16")
        sound = ops.join(before, pcm, axis=1)
        kept = ops.cut(sound, count * self.shift, count * self.shift + self.carry, 1)
        sound = ops("Mul", ops.cast(sound, "float32"), ops.constant(self.scale, np.float32))
        frames = self._frames(ops, sound, count)
        if self.centred:
            # a product, since the axes of ReduceMean are an attribute or an input, depending on the opset
            average = ops.constant(np.full((self.length, 1), 1 / self.length), np.float32)
            for _ in range(2):  # in float32, one subtraction leaves a part of a large mean
                frames = ops("Sub", frames, ops("MatMul", frames, average))
        late = ops.join(ops.cut(frames, 0, 1, 2), ops.cut(frames, 0, self.length - 1, 2), axis=2)
        frames = ops("Sub", frames, ops("Mul", late, ops.constant(self.preemphasis, np.float32)))
        bins = self.fft // 2 + 1
        turn = 2 * np.pi * np.outer(np.arange(self.length), np.arange(bins)) / self.fft
        basis = np.concatenate([np.cos(turn), -np.sin(turn)], axis=1) * self.shape[:, None]
        both = ops("MatMul", frames, ops.constant(basis, np.float32))
        both = ops("Mul", both, both)
        power = ops("Add", ops.cut(both, 0, bins, 2), ops.cut(both, bins, 2 * bins, 2))
        energy = ops("MatMul", power, ops.constant(self.bank, np.float32))
        return ops("Log", ops("Max", energy, ops.constant(np.finfo(np.float32).eps, np.float32))), kept

    def _frames(self, ops: Ops, sound: ir.Value, count: int) -> ir.Value:
        """Samples [B, carry + count * shift] -> frames [B, count, length]. A frame has the length of 2.5 shifts."""
        whole = [
            ops.reshape(ops.cut(sound, n * self.shift, (n + count) * self.shift, 1), (-1, count, self.shift))
            for n in range(2)
        ]
        rest = self.length - 2 * self.shift
        missing = ops.constant([0, 0, 0, self.shift - self.early])
        third = ops("Pad", ops.cut(sound, 2 * self.shift, self.carry + count * self.shift, 1), missing)
        third = ops.cut(ops.reshape(third, (-1, count, self.shift)), 0, rest, 2)
        return ops.join(*whole, third, axis=2)


def _mel(hz: Array) -> Array:
    return 1127 * np.log1p(hz / 700)


def _hz(mel: Array) -> Array:
    return 700 * np.expm1(mel / 1127)


def _slaney(hz: Array) -> Array:
    """Linear up to 1 kHz, logarithmic above (Slaney 1998, Auditory Toolbox)."""
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def _slaney_hz(mel: Array) -> Array:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(np.log(6.4) * (np.maximum(mel, 15) - 15) / 27))


#: Frontends by name; ``wenet``: Kaldi's without scaling of the samples.
KINDS = {
    "kaldi": Frontend(),
    "nemo": Frontend(window="hann", centred=False, low=0.0, high=0.0, mel="slaney"),
    "wenet": Frontend(scale=1.0),
}
