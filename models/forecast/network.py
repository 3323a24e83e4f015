"""The trained part of a forecaster: a recurrent or a causal convolutional network over a sensor's normalised readings.

Its inputs and outputs are in units of the sensor's pace and relative to its last reading, so that one network serves
any sensor (as in SegRNN, Lin et al. 2023, but causal: level and scale are running averages). In
:mod:`models.forecast.multivariate` it sees several sensors and forecasts several.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.forecast.front import Followed, pace_of
from models.layers import GatedStack, RecurrentStack, State, Streaming
from models.layers.config import Config

#: Level, difference, mask, age, spread; then the harmonics of the clock.
PLAIN = 5


@dataclass(frozen=True)
class NetworkConfig(Config):
    """``family``: "gru", "lstm", "rnn", or "convolution" (gated, causal, dilated: a WaveNet's stack). ``plain``: number
    of channels other than the clock's."""

    family: str = "gru"
    plain: int = PLAIN
    targets: int = 1
    clock: int = 12  # channels of the clock's harmonics
    hidden: int = 64
    layers: int = 2
    horizon: int = 48
    dropout: float = 0.1
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)


class Network(Streaming):
    """``forward(x [B, T, plain + clock], state) -> ((features [B, T, F], change [B, T, K * H]), state)``. ``change``:
    the mean change from each target's last reading for each step ahead, in units of its pace; the H steps of the first
    target, then those of the next.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        channels, hidden = config.plain + config.clock, config.hidden
        self.enter = nn.Linear(channels, hidden)
        if config.family == "convolution":
            self.body: Streaming = GatedStack(hidden, config.dilations, 2, hidden, config.dropout)
        else:
            self.body = RecurrentStack(config.family, hidden, hidden, config.layers, config.dropout)
        self.receptive_field = self.body.receptive_field
        self.head = nn.Linear(hidden, config.targets * config.horizon)
        nn.init.zeros_(self.head.weight)  # training starts from persistence
        nn.init.zeros_(self.head.bias)
        ahead = torch.arange(1, config.horizon + 1, dtype=torch.float32)
        self.register_buffer(
            "reach", ahead.sqrt().repeat(config.targets), persistent=False
        )  # deviation of a random walk

    def initial_state(self, batch: int) -> State:
        return self.body.initial_state(batch)

    def forward(self, x: Tensor, state: State) -> tuple[tuple[Tensor, Tensor], State]:
        features, state = self.body(torch.tanh(self.enter(x)), state)
        return (features, self.head(features) * self.reach), state


def inputs(found: Followed, waves: Tensor, memory: float) -> Tensor:
    """The network's input [..., 5 + clock] float32, from the result of :func:`models.forecast.front.follow`: distance
    from the level and difference to the reading before, in units of the pace; mask; number of readings so far over
    ``memory``; scale over pace; harmonics ``waves`` [..., clock] float32."""
    after, scale = found.after, found.scale
    pace = pace_of(after.squares, scale)
    moved = torch.cat([after.last - after.level, found.change, scale], -1) / pace
    above, step, spread = compressed(moved.float()).split(1, -1)
    return torch.cat([above, step, found.sure.float(), (after.count / memory).float(), spread, waves], -1)


def compressed(x: Tensor) -> Tensor:
    """An odd function: the identity near zero, a square root far from it, so that spikes stay visible without
    dominating."""
    return x / (1.0 + x.abs()).sqrt()
