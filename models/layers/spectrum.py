"""Short-time Fourier analysis and synthesis, with half a window of delay, by small matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming


def _turns(rows: int, columns: int, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``2 pi row column / size``, each [rows, columns]. The product is taken modulo ``size``, for
    precision."""
    product = torch.arange(rows)[:, None] * torch.arange(columns)[None] % size
    angle = 2 * math.pi * product.double() / size
    return angle.cos(), angle.sin()


class Spectrum(nn.Module):
    """Base of analysis and synthesis: a window of ``size`` samples, ``size / 2`` bins; the bin at half the sample rate
    is left out.

    A Fourier transform of ``a * b`` points is a transform of ``a`` points, a rotation of each number, and a transform
    of ``b`` points (Cooley and Tukey 1965): three small products instead of a basis of ``size ** 2`` numbers, which
    would be most of a small file. The root of a Hann window is applied in analysis and in synthesis, so that
    overlapping halves add up to one. Raises ``ValueError`` for a ``size`` that does not divide this way.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.bins, self.hop = size, size // 2, size // 2
        self.a = 1 << (size.bit_length() - 1) // 2
        self.b = size // self.a
        if self.a * self.b != size or self.b % 2:
            raise ValueError(f"a window of {size} samples: take a power of two from 8 on")
        window = torch.sin(math.pi * torch.arange(size, dtype=torch.float64) / size)
        self.register_buffer("window", window.float(), persistent=False)
        cos, sin = _turns(self.b, self.a, size)  # [b, a]
        self.register_buffer("cos", cos.float(), persistent=False)
        self.register_buffer("sin", sin.float(), persistent=False)

    def _keep(self, name: str, *quarters: Tensor) -> None:
        """Registers the block matrix [[first, second], [third, fourth]] as a buffer."""
        first, second, third, fourth = quarters
        whole = torch.cat([torch.cat([first, second], 1), torch.cat([third, fourth], 1)])
        self.register_buffer(name, whole.float().contiguous(), persistent=False)


class Analysis(Spectrum, Streaming):
    """Samples [B, N] -> real and imaginary parts [B, N / hop, 2, bins]. Frame t is the window that ends with sample
    (t + 1) * hop. State: the last ``hop`` samples, which are the first half of the next window."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.stride, self.receptive_field = self.hop, size
        cos, sin = _turns(self.a, self.a, self.a)
        self.register_buffer("inner", torch.cat([cos, -sin], 1).float(), persistent=False)  # [a, 2a]
        cos, sin = _turns(self.b, self.b // 2, self.b)
        self._keep("outer", cos, -sin, sin, cos)  # [2b, b]

    def initial_state(self, batch: int) -> State:
        return {"past": torch.zeros(batch, self.hop, device=self.window.device)}

    def forward(self, samples: Tensor, state: State) -> tuple[Tensor, State]:
        batch, steps = samples.shape[0], samples.shape[1] // self.hop
        halves = torch.cat([state["past"], samples], dim=1).view(batch, steps + 1, self.hop)
        frames = torch.cat([halves[:, :-1], halves[:, 1:]], dim=2) * self.window
        x = frames.view(batch, steps, self.a, self.b).transpose(2, 3) @ self.inner  # [B, T, b, 2a]
        real, imaginary = x[..., : self.a], x[..., self.a :]
        turned = [real * self.cos + imaginary * self.sin, imaginary * self.cos - real * self.sin]
        x = torch.cat([part.transpose(2, 3) for part in turned], dim=3) @ self.outer  # [B, T, a, b]
        spectrum = x.view(batch, steps, self.a, 2, self.b // 2).permute(0, 1, 3, 4, 2)
        return spectrum.reshape(batch, steps, 2, self.bins), {"past": samples[:, samples.shape[1] - self.hop :]}


class Synthesis(Spectrum, Streaming):
    """The inverse of :class:`Analysis`, ``hop`` samples late: [B, T, 2, bins] -> samples [B, T * hop]. State: the
    second half of the last frame, to which the next one is added."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.receptive_field = 2
        cos, sin = _turns(self.b // 2, self.b, self.b)
        self._keep("outer", cos, sin, -sin, cos)  # [b, 2b]
        cos, sin = _turns(self.a, self.a, self.a)
        self.register_buffer("inner", torch.cat([cos, -sin]).float(), persistent=False)  # [2a, a]
        weight = torch.full((self.bins,), 2.0 / size)
        weight[0] = 1.0 / size
        self.register_buffer("weight", weight, persistent=False)

    def initial_state(self, batch: int) -> State:
        return {"ahead": torch.zeros(batch, self.hop, device=self.window.device)}

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        batch, steps = spectrum.shape[:2]
        x = (spectrum * self.weight).view(batch, steps, 2, self.b // 2, self.a).permute(0, 1, 4, 2, 3)
        x = (x.reshape(batch, steps, self.a, self.b) @ self.outer).transpose(2, 3)  # [B, T, 2b, a]
        real, imaginary = x[:, :, : self.b], x[:, :, self.b :]
        turned = [real * self.cos - imaginary * self.sin, real * self.sin + imaginary * self.cos]
        x = torch.cat(turned, dim=3) @ self.inner  # [B, T, b, a]
        frames = x.transpose(2, 3).reshape(batch, steps, self.size) * self.window
        late, ahead = frames[..., : self.hop], frames[..., self.hop :]
        before = torch.cat([state["ahead"][:, None], ahead[:, :-1]], dim=1)
        return (late + before).reshape(batch, steps * self.hop), {"ahead": ahead[:, steps - 1]}
