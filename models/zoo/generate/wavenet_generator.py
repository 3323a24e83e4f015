"""WaveNet as a generator (van den Oord et al. 2016), with cached inputs of dilated convolutions (Paine et al. 2016).

A step generates a frame of ``width`` samples: the stack runs once, and a small network on top of it, which sees the
last samples, draws them one by one (the two tiers of SampleRNN, Mehri et al. 2017). The steps of a chunk are unrolled
in the graph. A convolution's terms from before the chunk are computed first, as one product for all steps; the rest of
a layer is eight small operators a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State, Streaming, inner, outer
from models.layers.config import Config
from models.layers.sampling import ControlColumns, Noise, Onset, choose, log_prob


@dataclass(frozen=True)
class WaveNetConfig(Config):
    """``labels``: number of values of the condition ``digit``. ``embedding``: size of a sample's embedding. ``pace``:
    largest number of frames since a label began that the network distinguishes."""

    vocabulary: int = 256
    width: int = 4
    labels: int = 11
    channels: int = 20
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64) * 2
    skip: int = 48
    hidden: int = 48
    embedding: int = 8
    guide: int = 32
    pace: int = 1600


#: Number of cosines that encode the time since a label began: the first has half a period in ``pace`` frames, each next
#: one is faster by ``FASTER``.
WAVES, FASTER = 24, 1.35


def clock(since: Tensor, pace: int) -> Tensor:
    """Frames since a label began [B, T] -> [B, T, WAVES]."""
    return (math.pi / pace * since[:, :, None].float() * FASTER ** torch.arange(WAVES)).cos()


class WaveNetGenerator(Streaming):
    """Controls [B, T, 3 + width] int32 -> ``tokens`` [B, T, width] int64 and ``log_prob`` [B, T, width].

    State: the last frame, the noise, the frames since the label began, and the last ``dilation`` inputs of each layer.
    :meth:`teach` runs the same weights over given samples in one call.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config = c = config
        self.receptive_field = 1 + sum(c.dilations)  # frames
        self.levels = nn.Embedding(c.vocabulary, c.embedding)
        # initially, neighbouring levels have similar embeddings
        level = torch.linspace(-1, 1, c.vocabulary)[:, None]
        with torch.no_grad():
            self.levels.weight.copy_(torch.cos(math.pi / 2 * torch.arange(1, c.embedding + 1) * (level + 1)))
        self.enter = nn.Linear(c.width * c.embedding, c.channels)
        self.guide = nn.Sequential(
            nn.Linear(c.labels + WAVES, c.guide), nn.ReLU(), nn.Linear(c.guide, len(c.dilations) * 2 * c.channels)
        )
        self.past = nn.ModuleList(nn.Linear(c.channels, 2 * c.channels, bias=False) for _ in c.dilations)
        self.now = nn.ModuleList(nn.Linear(c.channels, 2 * c.channels, bias=False) for _ in c.dilations)
        self.mix = nn.ModuleList(nn.Linear(c.channels, c.channels, bias=False) for _ in c.dilations)
        self.gather = nn.Linear(len(c.dilations) * c.channels, c.skip)
        self.spread = nn.Linear(c.skip, c.width * c.hidden)
        self.recent = nn.Linear(c.width * c.embedding, c.hidden, bias=False)
        self.head = nn.Linear(c.hidden, c.vocabulary)
        self.noise, self.onset = Noise(c.width), Onset(c.pace)
        self.columns = ControlColumns(c.vocabulary, c.width, top_k=False, conditions={"digit": c.labels})

    def initial_state(self, batch: int) -> State:
        c = self.config
        caches = {f"past.{i:02}": torch.zeros(batch, d, c.channels) for i, d in enumerate(c.dilations)}
        own = {"frame": torch.zeros(batch, c.width, dtype=torch.int64)} | caches
        parts = {"noise": self.noise, "onset": self.onset}
        return own | {k: v for name, part in parts.items() for k, v in outer(part.initial_state(batch), name).items()}

    def guided(self, labels: Tensor, since: Tensor) -> Tensor:
        """Labels, and frames since they began [B, T] -> terms of every layer's gates [B, T, L * 2C]."""
        return self.guide(torch.cat([F.one_hot(labels, self.config.labels).float(), clock(since, self.config.pace)], 2))

    def teach(self, tokens: Tensor, labels: Tensor, since: Tensor, last: bool = False) -> Tensor:
        """Tokens [B, T, width], labels and since [B, T] -> logits [B, T, width, V], each given the samples before.
        ``last``: of the last frame only, [B, 1, width, V]."""
        flat = F.pad(tokens.flatten(1), (self.config.width, 0))  # [B, (1 + T) * width]
        return self.follow(self.levels(flat), labels, since, last)

    def between(self, level: Tensor, labels: Tensor, since: Tensor) -> Tensor:
        """As :meth:`teach`, for samples ``level`` [B, T * width] between levels (0 to V - 1, fractional). Embeddings
        are interpolated, so that samples have a gradient."""
        c = self.config
        level = F.pad(level.clamp(0, c.vocabulary - 1), (c.width, 0))
        lower = level.detach().floor().clamp(max=c.vocabulary - 2)
        share = (level - lower)[:, :, None]
        known = torch.lerp(self.levels(lower.long()), self.levels(lower.long() + 1), share)
        return self.follow(known, labels, since)

    def follow(self, known: Tensor, labels: Tensor, since: Tensor, last: bool = False) -> Tensor:
        """The logits of :meth:`teach`, from ``known`` [B, (1 + T) * width, E]: the embeddings of the samples and of the
        frame before them."""
        c = self.config
        before = known[:, : -c.width].unflatten(1, (-1, c.width)).flatten(2)
        x, total = self.enter(before), []
        for d, guide, past, now, mix in zip(
            c.dilations, self.guided(labels, since).split(2 * c.channels, 2), self.past, self.now, self.mix, strict=True
        ):
            gates = now(x) + F.pad(past(x), (0, 0, d, 0))[:, : x.shape[1]] + guide
            content, gate = gates.chunk(2, dim=2)
            z = content.tanh() * gate.sigmoid()
            total.append(z)
            x = x + mix(z)
        z = torch.cat(total, dim=2)
        if last:
            z, known = z[:, -1:], known[:, -2 * c.width :]
        hidden = self.spread(self.gather(z).relu()).unflatten(2, (c.width, c.hidden))
        # the ``width`` samples before each one, oldest first
        windows = known.unfold(1, c.width, 1)[:, :-1].transpose(2, 3).flatten(2)  # [B, T * width, width * E]
        recent = self.recent(windows).unflatten(1, (-1, c.width))
        return self.head((hidden + recent).relu())

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        c, steps, layers = self.config, x.shape[1], len(self.config.dilations)
        settings = self.columns.read(x)
        draws, noise = self.noise(settings.seed, inner(state, "noise"))
        labels = settings.conditions["digit"]
        since, onset = self.onset(labels, inner(state, "onset"))
        # the terms that are known before the first step: [B, T, 2C] of each layer
        known = list(self.guided(labels, since).split(2 * c.channels, 2))
        for i, d in enumerate(c.dilations):
            early = self.past[i](state[f"past.{i:02}"][:, : min(d, steps)])
            known[i] = known[i] + (early if d >= steps else F.pad(early, (0, 0, 0, steps - d)))
        before = [part.unbind(1) for part in known]
        inputs: list[list[Tensor]] = [[] for _ in c.dilations]  # [B, C] of each layer and step
        # transposed once, so that the graph has no copy for every step
        matrices = [
            [layer[i].weight.T.contiguous() for layer in (self.now, self.past, self.mix)] for i in range(layers)
        ]
        gather, spread, recent = (layer.weight.T.contiguous() for layer in (self.gather, self.spread, self.recent))
        frame, chosen, logits = self.levels(state["frame"]).flatten(1), [], []  # [B, width * E]
        scale, force, draw = settings.scale.unbind(1), settings.force.unbind(1), draws.unbind(1)
        enter = self.enter.weight.T.contiguous()
        for t in range(steps):
            z = self._stack(frame @ enter + self.enter.bias, inputs, [part[t] for part in before], matrices)
            hidden = (z @ gather + self.gather.bias).relu() @ spread + self.spread.bias
            heard = list(frame.split(c.embedding, 1))
            given, drawn = force[t].split(1, 1), draw[t].split(1, 1)
            for j, part in enumerate(hidden.split(c.hidden, 1)):
                logit = self.head((part + torch.cat(heard[j:], 1) @ recent).relu())
                token = choose(logit, drawn[j], scale[t], None, given[j])
                heard.append(self.levels(token[:, 0]))
                chosen.append(token)
                logits.append(logit)
            frame = torch.cat(heard[c.width :], 1)
        flat = torch.cat(chosen, 1)  # [B, T * width]
        outputs = {"tokens": flat, "log_prob": log_prob(torch.stack(logits, 1), flat)}
        new = {"frame": flat[:, -c.width :], **outer(noise, "noise"), **outer(onset, "onset")}
        for i, d in enumerate(c.dilations):
            whole = torch.cat([state[f"past.{i:02}"], torch.stack(inputs[i], 1)], 1)
            new[f"past.{i:02}"] = whole[:, whole.shape[1] - d :]
        return {name: part.unflatten(1, (steps, c.width)) for name, part in outputs.items()}, new

    def _stack(
        self, x: Tensor, inputs: list[list[Tensor]], known: list[Tensor], matrices: list[list[Tensor]]
    ) -> Tensor:
        """One step: [B, C] -> the outputs of all layers [B, L * C]; appends each layer's input to ``inputs``."""
        total = []
        for i, ((now, past, mix), d) in enumerate(zip(matrices, self.config.dilations, strict=True)):
            gates = x @ now + known[i]
            if len(inputs[i]) >= d:  # the dilated tap is within this chunk
                gates = gates + inputs[i][-d] @ past
            inputs[i].append(x)
            content, gate = gates.chunk(2, dim=1)
            z = content.tanh() * gate.sigmoid()
            total.append(z)
            x = x + z @ mix
        return torch.cat(total, dim=1)
