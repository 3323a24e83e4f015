"""Causal convolutions on [B, T, C], and the gated residual block of WaveNet made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming, inner, outer


class ChannelNorm(nn.Module):
    """Batch norm over the channels of [B, T, C]: at inference a multiplication and an addition per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self.norm(x.flatten(0, 1)).view_as(x)
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        return x * scale + (self.norm.bias - self.norm.running_mean * scale)


class CausalConv(Streaming):
    """x [B, T, in] -> [B, T, out]: the output at t sees t, t - d, ..., t - (k - 1) d.

    The taps are shifted slices, concatenated, so that the convolution is one matrix product. On CPUs that is as fast as
    a convolution for long inputs, and faster for the few steps of a chunk. State: the last ``(k - 1) d`` inputs.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, dilation: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.channels_in, self.kernel, self.dilation = channels_in, kernel, dilation
        self.past = (kernel - 1) * dilation
        self.receptive_field = self.past + 1
        self.mix = nn.Linear(kernel * channels_in, channels_out, bias=bias)

    def initial_state(self, batch: int) -> State:
        if not self.past:
            return {}
        return {"past": torch.zeros(batch, self.past, self.channels_in, device=self.mix.weight.device)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        if not self.past:
            return self.mix(x), {}
        steps = x.shape[1]
        whole = torch.cat([state["past"], x], dim=1)  # [B, past + T, C]
        taps = [whole[:, i * self.dilation : i * self.dilation + steps] for i in range(self.kernel)]
        return self.mix(torch.cat(taps, dim=2)), {"past": whole[:, steps:]}


class StridedConv(Streaming):
    """Subsampling: x [B, T, in] -> [B, T / stride, out]. Output j sees the ``kernel`` inputs up to (j + 1) * stride.

    A chunk has a multiple of ``stride`` inputs and so a whole number of outputs: the only state is the overlap of
    ``kernel - stride`` inputs. Raises ``ValueError`` if ``kernel`` is smaller than ``stride``.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__()
        if kernel < stride:
            raise ValueError(f"a kernel of {kernel} with stride {stride} would skip inputs")
        self.channels_in, self.kernel, self.stride = channels_in, kernel, stride
        self.past = kernel - stride
        self.receptive_field = kernel
        self.mix = nn.Linear(kernel * channels_in, channels_out, bias=bias)

    def initial_state(self, batch: int) -> State:
        if not self.past:
            return {}
        return {"past": torch.zeros(batch, self.past, self.channels_in, device=self.mix.weight.device)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = x.shape[1] // self.stride
        whole = torch.cat([state["past"], x], dim=1) if self.past else x
        last = (steps - 1) * self.stride + 1
        taps = [whole[:, i : i + last : self.stride] for i in range(self.kernel)]
        return self.mix(torch.cat(taps, dim=2)), {"past": whole[:, x.shape[1] :]} if self.past else {}


class Subsample(Streaming):
    """Strided convolution, batch norm, ReLU: x [B, T, in] -> [B, T / stride, out]."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = StridedConv(channels_in, channels_out, kernel, stride, bias=False)
        self.norm = ChannelNorm(channels_out)
        self.stride, self.receptive_field = stride, kernel

    def initial_state(self, batch: int) -> State:
        return outer(self.conv.initial_state(batch), "conv")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x, part = self.conv(x, inner(state, "conv"))
        return self.norm(x).relu(), outer(part, "conv")


class GatedBlock(Streaming):
    """WaveNet's block (van den Oord et al. 2016, arXiv 1609.03499, eq. 2 and figure 4) with batch norm before the gate.

    x [B, T, C] -> residual and skip, concatenated [B, T, C + S]; :class:`GatedStack` adds them up.
    """

    def __init__(self, channels: int, skip: int, kernel: int, dilation: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels = channels
        self.conv = CausalConv(channels, 2 * channels, kernel, dilation, bias=False)
        self.norm = ChannelNorm(2 * channels)
        self.drop = nn.Dropout(dropout)
        self.mix = nn.Linear(channels, channels + skip)
        self.receptive_field = self.conv.receptive_field

    def initial_state(self, batch: int) -> State:
        return outer(self.conv.initial_state(batch), "conv")

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        gates, part = self.conv(x, inner(state, "conv"))
        content, gate = self.norm(gates).chunk(2, dim=2)
        return self.mix(self.drop(content.tanh() * gate.sigmoid())), outer(part, "conv")


class GatedStack(Streaming):
    """Gated blocks with the given dilations: [B, T, C] -> [B, T, S], the sum of all skips (S = ``skip``), ReLU.

    With ``skip=0`` the output is the residual itself, [B, T, C], for further layers.
    """

    def __init__(
        self, channels: int, dilations: tuple[int, ...], kernel: int = 3, skip: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.blocks = nn.ModuleList(GatedBlock(channels, skip, kernel, d, dropout) for d in dilations)
        self.receptive_field = 1 + sum((kernel - 1) * d for d in dilations)
        self.skip = skip
        self.norm = ChannelNorm(skip or channels)

    def initial_state(self, batch: int) -> State:
        state: State = {}
        for i, block in enumerate(self.blocks):
            state |= outer(block.initial_state(batch), str(i))
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        new: State = {}
        total: Tensor | None = None
        for i, block in enumerate(self.blocks):
            y, part = block(x, inner(state, str(i)))
            new |= outer(part, str(i))
            x = x + y[:, :, : self.channels]
            if self.skip:
                skipped = y[:, :, self.channels :]
                total = skipped if total is None else total + skipped
        return self.norm(x if total is None else total).relu(), new
