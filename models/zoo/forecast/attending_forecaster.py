"""Encoder-decoder with attention as a forecaster: one GRU reads the readings, another forecasts the steps in turn.

Seq2seq with attention (Sutskever et al. 2014, Bahdanau et al. 2015; the attention is Luong's) over a bounded memory:
the encoder's outputs at the last ``slots`` readings. After each reading the decoder starts from the encoder's output;
each of its steps gets its forecast of the step before, and attends to the memory. Positions are relative, as in
:class:`models.layers.WindowAttention`: the distance of step h from a slot is h plus the slot's age, so that "a day
before that hour" is one entry of a table for every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.forecast.network import compressed
from models.layers import State, Streaming, inner, outer
from models.layers.memory import gru_step
from models.zoo.forecast.sequence import SequenceConfig, SequenceForecaster, ascending

#: Size of a step's embedding.
EMBEDDING = 8


@dataclass(frozen=True)
class AttendingConfig(SequenceConfig):
    """``family``: of the encoder. ``slots``: number of readings that the decoder can attend to."""

    family: str = "gru"
    hidden: int = 43
    slots: int = 48


class EncoderMemory(Streaming):
    """The encoder's outputs [B, T, H] -> the last ``slots`` at each step [B, T, slots, H], oldest first, and a mask
    [B, T, slots], 1 where a slot is filled.

    State: the last ``slots - 1`` outputs, and their mask.
    """

    def __init__(self, slots: int, hidden: int) -> None:
        super().__init__()
        self.slots, self.hidden, self.receptive_field = slots, hidden, slots

    def initial_state(self, batch: int) -> State:
        return {
            "past": torch.zeros(batch, self.slots - 1, self.hidden),
            "seen": torch.zeros(batch, self.slots - 1),
        }

    def forward(self, x: Tensor, state: State) -> tuple[tuple[Tensor, Tensor], State]:
        steps = x.shape[1]
        whole = torch.cat([state["past"], x], 1)
        seen = torch.cat([state["seen"], torch.ones_like(x[:, :, 0])], 1)
        windows = torch.stack([whole[:, i : i + steps] for i in range(self.slots)], 2)
        there = torch.stack([seen[:, i : i + steps] for i in range(self.slots)], 2)
        return (windows, there), {"past": whole[:, steps:], "seen": seen[:, steps:]}


class ForecastDecoder(nn.Module):
    """``encoder`` [N, H]: its output; ``memory`` [N, M, H], its mask ``there`` [N, M]; ``known`` [N, S]: the linear
    forecasts -> mean and quantiles [N, S, 1 + Q] as in ``SequenceForecaster.moves``, and the attention [N, S, M]."""

    reach: Tensor

    def __init__(self, config: AttendingConfig, reach: Tensor) -> None:
        super().__init__()
        hidden, levels = config.hidden, len(config.quantiles)
        self.slots = config.slots
        self.register_buffer("reach", reach, persistent=False)
        self.ahead = nn.Parameter(0.1 * torch.randn(config.horizon, EMBEDDING))
        self.bridge = nn.Linear(hidden, hidden)
        self.cell = nn.GRU(1 + EMBEDDING, hidden, batch_first=True)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.distance = nn.Parameter(torch.zeros(config.slots + config.horizon - 1))
        self.mix = nn.Linear(2 * hidden, hidden)
        self.head = nn.Linear(hidden, 1 + levels)
        nn.init.zeros_(self.head.weight)  # training starts from persistence, with quantiles about a pace apart
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.0, -0.5 * (levels - 1)] + [0.54] * (levels - 1)))

    def forward(self, encoder: Tensor, memory: Tensor, there: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        h, before = self.bridge(encoder).tanh(), torch.zeros_like(known[:, :1])
        keys, far = memory.transpose(1, 2), -1e9 * (1 - there)
        said, weights = [], []
        for step in range(known.shape[1]):
            place = self.ahead[step].expand(h.shape[0], -1)
            h = gru_step(self.cell, torch.cat([compressed(before), place], 1), h)
            # slot i is M - 1 - i readings old, and this step is ``step`` + 1 readings ahead
            away = self.distance[step : step + self.slots].flip(0)
            score = (self.query(h)[:, None] @ keys)[:, 0] / math.sqrt(h.shape[1]) + away + far
            weight = score.softmax(1)
            context = (weight[:, None] @ memory)[:, 0]
            row = self.head(self.mix(torch.cat([h, context], 1)).tanh())
            row = ascending(row) * self.reach[step] + known[:, step : step + 1]
            before = row[:, :1]
            said.append(row)
            weights.append(weight)
        return torch.stack(said, 1), torch.stack(weights, 1)


class AttendingForecaster(SequenceForecaster):
    """As :class:`models.zoo.forecast.sequence.SequenceForecaster`, with another output ``attention`` [B, T, H, M]: the
    weight of each slot, oldest first, for each step ahead."""

    config: AttendingConfig

    def __init__(self, config: AttendingConfig) -> None:
        super().__init__(config)
        del self.head
        self.context = None
        self.remember = EncoderMemory(config.slots, config.hidden)
        self.decoder = ForecastDecoder(config, self.reach[:, 0])

    def memory(self, batch: int) -> State:
        return super().memory(batch) | outer(self.remember.initial_state(batch), "memory")

    def attend(self, x: Tensor, state: State, at: Tensor | None = None) -> tuple[Tensor, Tensor, State]:
        """As :meth:`moves`, with the attention. ``at`` [P]: decode at these readings only, for fast training."""
        known, past = self.straight(x, state["past"])
        encoded, part = self.body(torch.tanh(self.enter(x)), inner(state, "body"))
        encoded = self.norm(encoded)
        (memory, there), kept = self.remember(encoded, inner(state, "memory"))
        if at is not None:
            encoded, memory, there, known = (whole[:, at] for whole in (encoded, memory, there, known))
        steps = encoded.shape[1]
        said, weights = self.decoder(*(whole.flatten(0, 1) for whole in (encoded, memory, there, known)))
        new = {"past": past, **outer(part, "body"), **outer(kept, "memory")}
        return said.unflatten(0, (-1, steps)), weights.unflatten(0, (-1, steps)), new

    def moves(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        said, _, state = self.attend(x, state)
        return said, state

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        read = self.read(x, state)
        moves, weights, part = self.attend(read.x, state)
        return {**read.forecasts(moves), "attention": weights}, {**read.averages._asdict(), **part}
