"""Small recognisers with random weights and the signatures of the public ones: their caches are all used and kept.

What they say is nonsense, but it depends on the sound, on every cache, and on how long the stream has been going on:
some tokens a second, blanks in silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH = 12
#: How loud the tokens are beside the blank: about as many of both in noise.
GAIN, QUIET = 9.0, 5.0


@dataclass(frozen=True)
class Cache:
    """``shape``: at batch 1. ``batch``: its axis, ``None``: there is none. ``time``: the axis of frames."""

    name: str
    shape: tuple[int, ...]
    batch: int | None
    time: int

    @property
    def rest(self) -> list[int]:
        return [axis for axis in range(len(self.shape)) if axis not in (self.batch, self.time)]

    @property
    def size(self) -> int:
        return math.prod(self.shape[axis] for axis in self.rest)


class Kept(nn.Module):
    """One cache: what it holds bears on all frames, and the new frames push the oldest out."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache = cache
        self.write, self.read = nn.Linear(WIDTH, cache.size), nn.Linear(cache.size, WIDTH, bias=False)
        with torch.no_grad():
            self.read.weight.mul_(1.5 / math.sqrt(cache.size) * math.sqrt(cache.size))

    def forward(self, x: Tensor, old: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``x`` [N, T, width]; ``seen`` [N, frames of the cache and T]: 0 hides one."""
        c = self.cache
        sizes = [c.shape[axis] for axis in c.rest]
        fresh = torch.tanh(self.write(x)).reshape(x.shape[0], x.shape[1], *sizes)
        order = [c.batch if c.batch is not None else -1, c.time, *c.rest]
        back = [order.index(axis) for axis in range(len(c.shape))]
        if c.batch is None:
            fresh = fresh[0].permute([place - 1 for place in back])
        else:
            fresh = fresh.permute(back)
        whole = torch.cat([old, fresh], dim=c.time)
        new = whole.narrow(c.time, whole.shape[c.time] - c.shape[c.time], c.shape[c.time])
        frames = whole.permute([axis for axis in order if axis >= 0])
        frames = (frames[None] if c.batch is None else frames).flatten(2)  # [N, cached and T, size]
        if seen is not None:
            frames = frames * seen[:, : frames.shape[1], None]
        # every frame sees the cache as it goes on: sums of all up to it
        sums = torch.cumsum(frames, dim=1)[:, -x.shape[1] :] / c.shape[c.time]
        return x + torch.tanh(self.read(sums)), new


class Front(nn.Module):
    """[N, T, bins] log energies -> [N, frames, width], each of ``factor`` rows from ``skip`` on. Silence is zeros."""

    def __init__(self, frames: int, factor: int, bins: int = 80, loud: float = -4.0, skip: int = 0) -> None:
        super().__init__()
        self.frames, self.factor, self.loud, self.skip = frames, factor, loud, skip
        self.enter = nn.Linear(bins, WIDTH, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Also how far from silence each frame is, in (0, 1)."""
        x = x[:, self.skip : self.skip + self.frames * self.factor]
        x = x.reshape(x.shape[0], self.frames, self.factor, x.shape[2]).mean(2)
        level = x.mean(2, keepdim=True)
        return torch.tanh(self.enter(x - level)), torch.sigmoid(2 * (level - self.loud))


class Out(nn.Module):
    """Logits; ``blank`` wins where nothing is heard."""

    def __init__(self, tokens: int, blank: int) -> None:
        super().__init__()
        self.say = nn.Linear(WIDTH, tokens)
        shape = torch.zeros(tokens)
        shape[blank] = 1.0
        self.register_buffer("shape", shape)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:
        return GAIN * self.say(x) * heard + self.shape * (QUIET + 4 * (1 - heard))


class Caches(nn.Module):
    def __init__(self, caches: Sequence[Cache]) -> None:
        super().__init__()
        self.all = nn.ModuleList([Kept(cache) for cache in caches])

    def forward(self, x: Tensor, old: Sequence[Tensor], seen: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        new = []
        for kept, cache in zip(self.all, old, strict=True):
            x, after = kept(x, cache, seen)
            new.append(after)
        return x, new


class Predictor(nn.Module):
    """k2's stateless decoder: the last ``context`` tokens, of which -1 is nothing."""

    def __init__(self, tokens: int, context: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, WIDTH)
        self.mix = nn.Linear(context * WIDTH, WIDTH)

    def forward(self, y: Tensor) -> Tensor:
        known = (y >= 0).unsqueeze(-1).to(torch.float32)
        return torch.tanh(self.mix((self.embed(y.clamp(min=0)) * known).flatten(1)))


class Joiner(nn.Module):
    """The last of the encoder's numbers is how much there is to hear."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.out = Out(tokens, 0)

    def forward(self, encoder_out: Tensor, decoder_out: Tensor) -> Tensor:
        return self.out(encoder_out[:, :-1] + decoder_out, encoder_out[:, -1:])
