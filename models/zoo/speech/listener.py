"""A small recogniser of digits: log-mel, running normalisation, convolutions, a body, CTC.

The body is a causal recurrent layer, a bidirectional one with some steps of look-ahead, or the layers of any family of
:mod:`models.zoo.forecast.sequence`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import (
    Bidirectional,
    Chain,
    GatedStack,
    LogMel,
    RecurrentStack,
    RunningNorm,
    State,
    Streaming,
    Subsample,
    inner,
    outer,
)
from models.layers.config import Config
from models.zoo.forecast.sequence import body


@dataclass(frozen=True)
class ListenerConfig(Config):
    """``tokens``: size of the vocabulary, with the blank (index 0). ``ahead``: steps of look-ahead of a bidirectional
    LSTM; ``None``: a causal GRU, or the body of a ``family``."""

    tokens: int
    sample_rate: int = 8000
    bands: int = 20
    size: int = 160  # points of the front end's transform, whose basis is much of a small file
    channels: int = 44
    dilations: tuple[int, ...] = (1, 2)
    hidden: int = 60
    ahead: int | None = None
    family: str | None = None


class Body(Streaming):
    """[B, T, C] -> [B, T, H]: a family's layers between a projection and a layer norm."""

    def __init__(self, family: str, channels: int, hidden: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(channels, hidden), nn.LayerNorm(hidden)
        self.layers = body(family, hidden)
        self.receptive_field = self.layers.receptive_field

    def initial_state(self, batch: int) -> State:
        return self.layers.initial_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        x, state = self.layers(self.enter(x).tanh(), state)
        return self.leave(x), state


def top(c: ListenerConfig) -> Streaming:
    """The body. Raises ``ValueError`` for an unknown family, or a family with look-ahead."""
    if c.family is None:
        if c.ahead is None:
            return RecurrentStack("gru", c.channels, c.hidden, 1)
        return Bidirectional(c.channels, c.hidden // 2, c.ahead)
    if c.ahead is not None:
        raise ValueError("the body of a family is causal: leave out `ahead`")
    return Body(c.family, c.channels, c.hidden)


class Ear(Streaming):
    """The encoder: int16 PCM [B, N] -> hidden [B, N / hop, H]; a step is 40 ms. ``normalise`` sets the normaliser's
    constants."""

    receptive_field = None

    def __init__(self, c: ListenerConfig) -> None:
        super().__init__()
        self.front = Chain({"mel": LogMel(c.sample_rate, c.bands, size=c.size), "norm": RunningNorm(c.bands)})
        layers: dict[str, Streaming] = {
            "halve": Subsample(c.bands, c.channels, 5, 2),
            "quarter": Subsample(c.channels, c.channels, 5, 2),
            "gated": GatedStack(c.channels, c.dilations, 3),
            "recurrent": top(c),
        }
        self.encoder = Chain(layers)
        self.stride = self.front.stride * self.encoder.stride
        self.latency = self.front.stride * self.encoder.latency  # samples
        self.width = c.hidden if c.ahead is None else c.hidden // 2 * 2

    def initial_state(self, batch: int) -> State:
        return outer(self.front.initial_state(batch), "front") | outer(self.encoder.initial_state(batch), "encoder")

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        features, front = self.front(pcm, inner(state, "front"))
        hidden, encoder = self.encoder(features, inner(state, "encoder"))
        return hidden, outer(front, "front") | outer(encoder, "encoder")

    @torch.no_grad()
    def normalise(self, pcm: Tensor) -> None:
        """Set the normaliser's constants from the energies of ``pcm`` [B, N] int16."""
        mel = self.front.layers["mel"]
        energies, _ = mel(pcm, mel.initial_state(len(pcm)))
        self.front.layers["norm"].set_constants(energies)


class Listener(Streaming):
    """``forward(pcm int16 [B, N], state) -> (log_probs [B, N / hop, V], state)``."""

    receptive_field = None
    ear: Ear

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self.config = config
        self.ear = Ear(config)
        self.head = nn.Linear(self.ear.width, config.tokens)
        self.hop = self.stride = self.ear.stride
        self.latency = self.ear.latency
        self.sample_rate = config.sample_rate

    def initial_state(self, batch: int) -> State:
        return self.ear.initial_state(batch)

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, state = self.ear(pcm, state)
        return self.head(hidden).log_softmax(dim=2), state
