"""The second half of Kokoro, in PyTorch. Two thirds of its work are int8 convolutions, for which ONNX Runtime has no
fast kernel; in bfloat16, channels last, they are up to ten times as fast on a processor with AMX.

An iSTFT network (Kaneko et al. 2022, arXiv 2203.02395): two transposed convolutions upsample features of 80 frames a
second, together with a harmonic source, to 4800 frames a second; the speaker's style controls the norms of the residual
blocks; the outputs are magnitude and phase of a small Fourier transform.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.training.processor import fast_bfloat16

ROOT = "/decoder/decoder/generator/"
#: Names in the graph: the generator's input and its harmonic source, where the graph is cut; and the durations of the
#: symbols in units of 25 ms.
FEATURES, SOURCE = "/decoder/decoder/decode.3/Div_4_output_0", ROOT + "Concat_3_output_0"
DURATIONS = "/encoder/Clip_output_0"
TILE = 512  # rows that are processed at a time, so that they stay in the cache
DILATIONS = (1, 3, 5)

Weights = Callable[[str], NDArray[np.float32]]


@dataclass
class Conv:
    """A convolution over [1, C, 1, T], channels last."""

    weight: Tensor
    bias: Tensor
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return functional.conv2d(
            x, self.weight, self.bias, (1, self.stride), padding=(0, self.pad), dilation=(1, self.dilation)
        )


@dataclass
class Norm:
    """Instance norm controlled by a style, then the activation ``x + sin(a x)^2 / a`` (snake: Ziyin et al. 2020)."""

    weight: Tensor  # [style, 2 C]
    bias: Tensor
    rate: Tensor  # a, [C]
    kind: torch.dtype  # of the output

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        """x [T, C], style [S] -> [T, C] in the convolutions' dtype."""
        scale, shift = (style @ self.weight + self.bias).chunk(2)
        mean, variance = moments(x)
        scale = (1 + scale) * (variance + 1e-5).rsqrt()
        shift = shift - mean * scale
        half, twice = 0.5 / self.rate, 2 * self.rate
        fast, slow, raised = twice * scale, twice * shift, shift + half
        out = torch.empty(x.shape, dtype=self.kind)
        wave, y = torch.empty(2, TILE, x.shape[1]).unbind()
        for start in range(0, len(x), TILE):
            part = x[start : start + TILE].float()
            count = len(part)
            # sin^2(z) = (1 - cos(2 z)) / 2
            torch.addcmul(slow, part, fast, out=wave[:count]).cos_()
            torch.addcmul(raised, part, scale, out=y[:count])
            out[start : start + TILE] = y[:count].addcmul_(wave[:count], half, value=-1)
        return out


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column of [T, C]; PyTorch's ``var_mean`` takes ten times as long over rows."""
    total, square = torch.zeros(2, x.shape[1]).unbind()
    for start in range(0, len(x), TILE):
        part = x[start : start + TILE].float()
        total += part.sum(0)
        square += (part * part).sum(0)
    mean = total / len(x)
    return mean, (square / len(x) - mean.square()).clamp_(min=0)


def rows(x: Tensor) -> Tensor:
    """[1, C, 1, T], channels last -> [T, C], without a copy."""
    return x.permute(0, 2, 3, 1)[0, 0]


def image(x: Tensor) -> Tensor:
    """The inverse of :func:`rows`."""
    return x[None, None].permute(0, 3, 1, 2)


class ResidualBlock:
    """Three times: norm, dilated convolution, norm, convolution, added to the input."""

    def __init__(self, name: str, weights: Weights, kind: torch.dtype) -> None:
        self.layers: list[tuple[Norm, Conv]] = []
        for i, dilation in enumerate(DILATIONS):
            for half, d in ((1, dilation), (2, 1)):
                place = f"{name}/convs{half}.{i}"
                kernel = weights(place + "/kernel")
                conv = Conv(
                    *_taps(kernel, weights(place + "/bias"), kind), pad=d * (kernel.shape[2] - 1) // 2, dilation=d
                )
                style = f"{name}/adain{half}.{i}/fc"
                rate = _tensor(weights(f"{name}/alpha{half}.{i}")).flatten()
                norm = Norm(_tensor(weights(style + "/kernel")), _tensor(weights(style + "/bias")), rate, kind)
                self.layers.append((norm, conv))

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        """x [T, C] float32, style [S] -> [T, C] float32."""
        x = x.clone()
        for (norm, conv), (again, second) in zip(self.layers[::2], self.layers[1::2], strict=True):
            y = rows(conv(image(norm(x, style))))
            x += rows(second(image(again(y, style))))
        return x


class Vocoder:
    """``weights(name)``: float32 arrays of the graph's generator, by the names of :class:`~.kokoro.Graph`. ``kind``:
    dtype of the convolutions, by default the faster one."""

    def __init__(self, weights: Weights, kind: torch.dtype | None = None) -> None:
        self.kind = kind = kind or (torch.bfloat16 if fast_bfloat16() else torch.float32)
        self.enter = [
            Conv(
                *_taps(weights(f"noise_convs.{i}/kernel"), weights(f"noise_convs.{i}/bias"), kind),
                stride=stride,
                pad=pad,
            )
            for i, (stride, pad) in enumerate(((6, 3), (1, 0)))
        ]
        self.sources = [ResidualBlock(f"noise_res.{i}", weights, kind) for i in range(2)]
        self.blocks = [[ResidualBlock(f"resblocks.{3 * i + j}", weights, kind) for j in range(3)] for i in range(2)]
        self.ups = [(_tensor(weights(f"ups.{i}/kernel")).to(kind), _tensor(weights(f"ups.{i}/bias"))) for i in range(2)]
        kernel = weights("conv_post/kernel")
        self.leave = Conv(*_taps(kernel, weights("conv_post/bias"), kind), pad=kernel.shape[2] // 2)
        self.window = torch.hann_window(20)

    @torch.inference_mode()
    def __call__(
        self, features: NDArray[np.float32], source: NDArray[np.float32], style: NDArray[np.float32]
    ) -> Tensor:
        """features [1, 512, T], source [1, 22, 60 T + 1], style [128] -> samples [300 T] at 24 kHz."""
        steered = torch.from_numpy(style)
        x = torch.from_numpy(features)
        heard = torch.from_numpy(source)[:, :, None].contiguous(memory_format=torch.channels_last).to(self.kind)
        for i, (stride, pad) in enumerate(((10, 5), (6, 3))):
            x = functional.leaky_relu(x, 0.1).to(self.kind)
            x = functional.conv_transpose1d(x, self.ups[i][0], stride=stride, padding=pad).float()
            x = x + self.ups[i][1][:, None]
            if i == 1:
                x = functional.pad(x, (1, 0), mode="reflect")
            y = x[0].T.contiguous()  # [T, C]
            y += self.sources[i](rows(self.enter[i](heard)).float(), steered)
            whole = sum(block(y, steered) for block in self.blocks[i]) / 3
            x = whole.T[None]
        spectrum = rows(self.leave(image(functional.leaky_relu(whole, 0.01).to(self.kind)))).float().T  # [22, T]
        size, phase = spectrum[:11].exp(), spectrum[11:].sin()
        return torch.istft(torch.polar(size, phase), 20, 5, window=self.window, center=True)


def _tensor(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(values))


def _taps(kernel: NDArray[np.float32], bias: NDArray[np.float32], kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """[out, in, taps] as a channels-last image kernel [out, in, 1, taps]."""
    weight = _tensor(kernel)[:, :, None].contiguous(memory_format=torch.channels_last)
    return weight.to(kind), _tensor(bias).to(kind)
