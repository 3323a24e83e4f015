"""Frames, their spectra, and synthesis by overlap-add: bases for the graph, transforms for the host.

Analysis: ``X[f] = sum_n w[n] x[n] exp(-2 pi i f n / N)``. Synthesis: the inverse transform, times ``w`` over the sum of
the squares of all windows that cover a sample; with the window ``none``, frames are added up unweighted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.adopt.ops import Ops
from export.adopt.report import AdoptionError
from export.adopt.settings import Host

__all__ = ["add_up", "analysis", "inverse", "spectra", "synthesis_window", "window", "windowed"]

Array = NDArray[np.float64]


def window(host: Host) -> Array:
    """The analysis window [fft], periodic, as scipy's ``fftbins=True`` and torch's default."""
    phase = 2 * np.pi * np.arange(host.fft) / host.fft
    hann = 0.5 - 0.5 * np.cos(phase)
    shapes = {
        "none": np.ones(host.fft),
        "hann": hann,
        "sqrt-hann": np.sqrt(hann),
        "hamming": 0.54 - 0.46 * np.cos(phase),
    }
    return shapes[host.window]


def synthesis_window(host: Host) -> Array:
    """The synthesis window [fft]. Raises :class:`AdoptionError` if the windows give a sample no weight."""
    shape = window(host)
    if host.window == "none":
        return shape
    weight = np.sum(np.square(shape).reshape(-1, host.hop), axis=0)
    if weight.min() < 1e-6:
        raise AdoptionError(
            f"[host] window = {host.window!r} with a hop of {host.hop} gives some samples no weight: take a shorter hop"
        )
    return np.asarray(shape / np.tile(weight, host.fft // host.hop))


# -- in the graph -----------------------------------------------------------------------------------------------------


def analysis(ops: Ops, sound: ir.Value, host: Host, frames: int) -> tuple[ir.Value, ir.Value]:
    """Sound [B, (frames - 1) hop + fft] -> real and imaginary part, each [B, frames, bins], by a Conv with a fixed
    basis."""
    bins = host.fft // 2 + 1
    turn = 2 * np.pi * np.outer(np.arange(bins), np.arange(host.fft)) / host.fft
    basis = np.concatenate([np.cos(turn), -np.sin(turn)]) * window(host)  # [2 bins, fft]
    kernel = ops.constant(basis[:, None], np.float32)
    samples = (frames - 1) * host.hop + host.fft
    y = ops("Conv", ops.reshape(sound, (-1, 1, samples)), kernel, strides=[host.hop])  # [B, 2 bins, frames]
    y = ops("Transpose", y, perm=[0, 2, 1])
    return ops.cut(y, 0, bins, 2), ops.cut(y, bins, 2 * bins, 2)


def inverse(ops: Ops, real: ir.Value, imaginary: ir.Value, host: Host) -> ir.Value:
    """Real and imaginary part, each [B, frames, bins] -> frames [B, frames, fft]."""
    bins = host.fft // 2 + 1
    turn = 2 * np.pi * np.outer(np.arange(bins), np.arange(host.fft)) / host.fft
    twice = np.full((bins, 1), 2.0)
    twice[[0, -1]] = 1.0  # all other bins count for their mirror image, too
    basis = np.concatenate([np.cos(turn) * twice, -np.sin(turn) * twice]) / host.fft  # [2 bins, fft]
    return ops("MatMul", ops.join(real, imaginary, axis=2), ops.constant(basis, np.float32))


def windowed(ops: Ops, frames: ir.Value, host: Host) -> ir.Value:
    """``frames`` [B, frames, fft] times the synthesis window."""
    return frames if host.window == "none" else ops("Mul", frames, ops.constant(synthesis_window(host), np.float32))


def add_up(ops: Ops, frames: ir.Value, tail: ir.Value, host: Host, count: int) -> tuple[ir.Value, ir.Value]:
    """Overlap-add: windowed frames [B, count, fft] and the tail of earlier frames [B, fft - hop] -> sound [B, count
    hop] and the new tail."""
    new = count * host.hop
    total = ops("Pad", tail, ops.constant([0, 0, 0, new]))
    for number in range(count):
        one = ops.reshape(ops.cut(frames, number, number + 1, 1), (-1, host.fft))
        before = number * host.hop
        after = new - host.hop - before
        total = ops("Add", total, ops("Pad", one, ops.constant([0, before, 0, after])) if count > 1 else one)
    return ops.cut(total, 0, new, 1), ops.cut(total, new, new + host.fft - host.hop, 1)


# -- in NumPy ---------------------------------------------------------------------------------------------------------


def spectra(sound: NDArray[Any], host: Host, frames: int) -> NDArray[np.complex128]:
    """Sound [(frames - 1) hop + fft] -> spectra [frames, bins]."""
    shape = window(host)
    return np.stack([np.fft.rfft(shape * sound[n * host.hop :][: host.fft]) for n in range(frames)])
