"""Parallel WaveNet (van den Oord et al. 2018, arXiv 1711.10433): all samples of a chunk in parallel, from noise.

An inverse autoregressive flow: each of a few stacks of dilated convolutions computes, from the noise of earlier
samples, the shift and scale of every sample's noise. No sample waits for another one, and each depends on a limited
past: the noise of the ``receptive_field``, and the label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State, Streaming, inner, outer
from models.layers.config import Config
from models.layers.sampling import ControlColumns, Noise, Onset
from models.zoo.generate.wavenet_generator import WAVES, clock

#: Smallest distance of a draw from 0 and 1, since the logistic's tails are infinite.
EDGE = 2.0**-25


@dataclass(frozen=True)
class ParallelConfig(Config):
    """``flows``: the dilations of each flow's stack. ``width``: samples of a step, as of the teacher's frames.
    ``labels`` and ``pace`` as in :class:`models.zoo.generate.wavenet_generator.WaveNetConfig`."""

    flows: tuple[tuple[int, ...], ...] = ((1, 2, 4, 8, 16, 32, 64, 128, 256), (1, 2, 4, 8, 16, 32, 64, 128, 256))
    channels: int = 24
    hidden: int = 32
    guide: int = 48
    vocabulary: int = 256
    width: int = 4
    labels: int = 11
    pace: int = 1600


class WaveFlow(Streaming):
    """Noise [B, N] and the conditioning of every layer's gates [B, N, L * 2C] -> shift and log-scale [B, N], each from
    the noise before it. State: the last noise, and the last ``dilation`` inputs of every layer."""

    def __init__(self, dilations: tuple[int, ...], channels: int, hidden: int, spread: float) -> None:
        super().__init__()
        self.dilations, self.channels = dilations, channels
        self.receptive_field = 2 + sum(dilations)  # samples of noise, with the sample's own
        self.enter = nn.Linear(2, channels)
        self.taps = nn.ModuleList(nn.Linear(2 * channels, 2 * channels, bias=False) for _ in dilations)
        self.mix = nn.ModuleList(nn.Linear(channels, channels) for _ in dilations)
        self.gather = nn.Linear(len(dilations) * channels, hidden)
        self.head = nn.Linear(hidden, 2)
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(torch.tensor([0.0, math.log(spread)]))

    def initial_state(self, batch: int) -> State:
        caches = {f"past.{i:02}": torch.zeros(batch, d, self.channels) for i, d in enumerate(self.dilations)}
        return {"last": torch.zeros(batch, 1)} | caches

    def forward(self, noise: Tensor, guide: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        whole = torch.cat([state["last"], noise], 1)
        before = whole[:, :-1, None]
        x = self.enter(torch.cat([before, before.tanh()], 2))
        new, said = {"last": whole[:, -1:]}, []
        parts = guide.split(2 * self.channels, 2)
        for i, (d, part, taps, mix) in enumerate(zip(self.dilations, parts, self.taps, self.mix, strict=True)):
            seen = torch.cat([state[f"past.{i:02}"], x], 1)
            new[f"past.{i:02}"] = seen[:, seen.shape[1] - d :]
            content, gate = (taps(torch.cat([seen[:, : x.shape[1]], x], 2)) + part).chunk(2, dim=2)
            z = content.tanh() * gate.sigmoid()
            said.append(z)
            x = x + mix(z)
        shift, scale = self.head(self.gather(torch.cat(said, 2)).relu()).unbind(2)
        return shift, scale.clamp(-9.0, 3.0), new


class ParallelWaveNet(Streaming):
    """Controls [B, T, 3 + width] int32 -> ``tokens`` [B, T, width] int64 and ``log_prob`` [B, T, width] of each token
    given the noise before it. A forced token is output, but changes no other. ``temperature`` scales the noise: at 0
    every sample is the middle of its distribution.
    """

    def __init__(self, config: ParallelConfig) -> None:
        super().__init__()
        self.config = c = config
        self.flows = nn.ModuleList(
            WaveFlow(dilations, c.channels, c.hidden, 0.05 if i == 0 else 1.0) for i, dilations in enumerate(c.flows)
        )
        self.receptive_field = 1 - (-sum(1 + sum(flow) for flow in c.flows) // c.width)  # steps
        self.guide = nn.Sequential(
            nn.Linear(c.labels + WAVES, c.guide), nn.ReLU(), nn.Linear(c.guide, c.guide), nn.ReLU()
        )
        self.told = nn.ModuleList(nn.Linear(c.guide, len(flow) * 2 * c.channels) for flow in c.flows)
        self.noise, self.onset = Noise(c.width), Onset(c.pace)
        self.columns = ControlColumns(c.vocabulary, c.width, top_k=False, conditions={"digit": c.labels})

    def initial_state(self, batch: int) -> State:
        parts: dict[str, Streaming] = {"noise": self.noise, "onset": self.onset}
        parts |= {f"flow{i}": flow for i, flow in enumerate(self.flows)}
        return {k: v for name, part in parts.items() for k, v in outer(part.initial_state(batch), name).items()}

    def guided(self, labels: Tensor, since: Tensor) -> Tensor:
        """Labels, and steps since they began [B, T] -> conditioning [B, T, guide]."""
        return self.guide(torch.cat([F.one_hot(labels, self.config.labels).float(), clock(since, self.config.pace)], 2))

    def play(self, noise: Tensor, labels: Tensor, since: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor, State]:
        """Logistic noise [B, T * width] -> samples on the mu-law scale [-1, 1], the middle and log-scale of each one's
        distribution given the noise before, [B, T * width] each, and the state."""
        guides, new = self.guided(labels, since), {}
        x, middle, width = noise, torch.zeros_like(noise), torch.zeros_like(noise)
        for i, (flow, project) in enumerate(zip(self.flows, self.told, strict=True)):
            guide = project(guides).repeat_interleave(self.config.width, dim=1)
            shift, scale, part = flow(x, guide, inner(state, f"flow{i}"))
            x = x * scale.exp() + shift
            middle, width = middle * scale.exp() + shift, width + scale
            new |= outer(part, f"flow{i}")
        return x, middle, width, new

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        c, steps = self.config, x.shape[1]
        settings = self.columns.read(x)
        draws, noise = self.noise(settings.seed, inner(state, "noise"))
        labels = settings.conditions["digit"]
        since, onset = self.onset(labels, inner(state, "onset"))
        u = draws.clamp(EDGE, 1 - EDGE)
        z = ((u / (1 - u)).log() / settings.scale).flatten(1)
        sound, middle, scale, new = self.play(z, labels, since, state)
        level = ((sound + 1) / 2 * (c.vocabulary - 1)).round().clamp(0, c.vocabulary - 1).long()
        force = settings.force.flatten(1)
        token = torch.where(force >= 0, force, level)
        share = levels_log_prob(middle, scale, c.vocabulary, token)
        outputs = {"tokens": token.unflatten(1, (steps, c.width)), "log_prob": share.unflatten(1, (steps, c.width))}
        return outputs, {**new, **outer(noise, "noise"), **outer(onset, "onset")}


def levels_log_prob(middle: Tensor, scale: Tensor, levels: int, token: Tensor) -> Tensor:
    """The log-probability of a token's level under a logistic on [-1, 1] with ``middle`` and log-``scale``; the
    outermost levels have the tails. Broadcasts."""
    half = 1.0 / (levels - 1)
    at = 2.0 * token.to(middle.dtype) / (levels - 1) - 1
    inverse = (-scale).exp()
    above, below = (at + half - middle) * inverse, (at - half - middle) * inverse
    below = torch.where(token > 0, below, -1e4)
    above = torch.where(token < levels - 1, above, 1e4)
    # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)): precise in both tails
    gap = torch.log(-torch.expm1((below - above).clamp(-80.0, -1e-6)))
    # log sigmoid(x) = -softplus(-x), which never takes the logarithm of zero
    return -F.softplus(-above) - F.softplus(below) + gap
