"""One forecaster with seven bodies: recurrent networks, a deep residual one, convolutions, attention, minGRU.

Everything around the body is the same: a sensor's readings in units of its pace (:mod:`models.forecast.normalise`), an
embedding, the body, a layer norm, and a head with mean and quantiles for each step ahead, relative to the last reading.
A linear map of the last day is added to the output (the highway of LSTNet, Lai et al. 2018, arXiv 1703.07015), so that
a body only has to learn the rest. The family "linear" has no body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.forecast.network import PLAIN
from models.forecast.normalise import ABSURD, DAY_HARMONICS, WEEK_HARMONICS, Averages, follow, pace_of, waves
from models.layers import (
    Chain,
    FeedForward,
    GatedStack,
    MinGRU,
    Recurrent,
    Residual,
    State,
    Streaming,
    WindowAttention,
    inner,
    outer,
)
from models.layers.config import Config
from models.zoo.forecast.plain import inputs

FAMILIES = ("rnn", "lstm", "gru", "residual", "tcn", "transformer", "mingru")
LAYERS = {"linear": 0, "rnn": 2, "lstm": 2, "gru": 2, "residual": 8, "tcn": 7, "transformer": 2, "mingru": 3}
HEADS, WINDOW = 4, 96
CLOCK = 2 * (DAY_HARMONICS + WEEK_HARMONICS)
#: Number of readings that the linear map sees, and their largest distance from the last one, in paces.
LAGS, FARTHEST = 24, 50.0


@dataclass(frozen=True)
class SequenceConfig(Config):
    """``family``: of :data:`LAYERS`; "residual" has LSTMs. ``window``: readings that one layer of attention sees."""

    family: str
    hidden: int
    horizon: int = 24
    quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
    window: int = WINDOW
    memory: float = 2000.0  # readings over which level and scale are averaged


def body(family: str, hidden: int, window: int = WINDOW) -> Streaming:
    """The layers of a ``family``, [B, T, hidden] -> [B, T, hidden]. Raises ``ValueError`` for an unknown family."""
    if family not in LAYERS:
        raise ValueError(f"family {family!r}: one of {', '.join(LAYERS)}")
    layers = range(LAYERS[family])
    if family == "tcn":
        return GatedStack(hidden, tuple(2**i for i in layers), kernel=2, skip=hidden)
    if family in ("transformer", "mingru"):
        mixers = [
            MinGRU(hidden, hidden) if family == "mingru" else WindowAttention(hidden, HEADS, window) for _ in layers
        ]
        pairs = [(f"{i}a", mixer) for i, mixer in enumerate(mixers)] + [(f"{i}b", FeedForward(hidden)) for i in layers]
        return Chain({name: Residual(layer, hidden) for name, layer in sorted(pairs)})
    cell = "lstm" if family == "residual" else family
    stack: dict[str, Streaming] = {str(i): Recurrent(cell, hidden, hidden) for i in layers}
    return Chain({name: Residual(layer, hidden) for name, layer in stack.items()} if family == "residual" else stack)


class SequenceForecaster(Streaming):
    """``forward(x [B, T, 4], state) -> ({"mean" [B, T, H], "quantiles" [B, T, H, Q]}, state)``; channels: reading
    (anything where missing), mask (0 where missing, else 1), time of day and of week in [0, 1).

    ``receptive_field`` is ``None`` because of the running averages; ``context`` is that of everything else.
    """

    receptive_field = None

    def __init__(self, config: SequenceConfig) -> None:
        super().__init__()
        self.config = config
        hidden, levels = config.hidden, len(config.quantiles)
        self.enter = nn.Linear(PLAIN + CLOCK, hidden)
        self.body = body(config.family, hidden, config.window)
        field = self.body.receptive_field
        self.context = None if field is None else max(field, LAGS + 1)
        self.direct = nn.Linear(LAGS, config.horizon, bias=False)
        nn.init.zeros_(self.direct.weight)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, config.horizon * (1 + levels))
        nn.init.zeros_(self.head.weight)  # training starts from persistence, with quantiles about a pace apart
        with torch.no_grad():
            self.head.bias.copy_(
                torch.tensor([0.0, -0.5 * (levels - 1)] + [0.54] * (levels - 1)).repeat(config.horizon)
            )
        ahead = torch.arange(1, config.horizon + 1, dtype=torch.float32)
        self.register_buffer("reach", ahead.sqrt()[:, None], persistent=False)  # deviation of a random walk

    def initial_state(self, batch: int) -> State:
        averages = {name: torch.zeros(batch, 1) for name in Averages._fields}
        return averages | self.memory(batch)

    def memory(self, batch: int) -> State:
        """The state of :meth:`moves`: the body's, and the last readings above their level."""
        return {"past": torch.zeros(batch, LAGS, 1), **outer(self.body.initial_state(batch), "body")}

    def moves(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x`` [B, T, PLAIN + CLOCK] from :func:`models.zoo.forecast.plain.inputs` -> [B, T, H, 1 + Q]: change from
        the last reading in units of the pace, the mean and then quantiles, which ascend by construction."""
        known, past = self.straight(x, state["past"])
        x, part = self.body(torch.tanh(self.enter(x)), inner(state, "body"))
        said = self.head(self.norm(x)).unflatten(2, (self.config.horizon, -1))
        moves = ascending(said) * self.reach + known[..., None]
        return moves, {"past": past, **outer(part, "body")}

    def straight(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The linear forecast from the last day for each step ahead [B, T, H], and the last readings above their
        level."""
        steps, above = x.shape[1], expanded(x[..., :1])
        whole = torch.cat([past, above], 1)
        lags = torch.cat([whole[:, i : i + steps] for i in range(LAGS)], 2)  # oldest first
        return self.direct((lags - above).clamp(-FARTHEST, FARTHEST)), whole[:, steps:]

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        read = self.read(x, state)
        moves, part = self.moves(read.x, state)
        return read.forecasts(moves), {**read.averages._asdict(), **part}

    def read(self, x: Tensor, state: State) -> Read:
        """The input of :meth:`moves` for ``x`` [B, T, 4], and the averages."""
        there = ((x[..., 1:2] > 0.5) & (x[..., :1].abs() < ABSURD)).to(x.dtype)  # false for NaN, too
        beat = waves(x[..., 2:])
        now = Averages(*(state[name] for name in Averages._fields))
        rows, last, pace = list[Tensor](), list[Tensor](), list[Tensor]()
        for t in range(x.shape[1]):
            reading = torch.where(there[:, t] > 0, x[:, t, :1], now.last)
            now, scale, change = follow(reading, there[:, t], now, self.config.memory)
            rows.append(inputs(now, scale, change, there[:, t], beat[:, t], self.config.memory))
            last.append(now.last)
            pace.append(pace_of(now.squares, scale))
        return Read(torch.stack(rows, 1), torch.stack(last, 1), torch.stack(pace, 1), now)


class Read(NamedTuple):
    """``x``: the input of :meth:`SequenceForecaster.moves`; ``last`` reading and ``pace`` [B, T, 1]; the averages."""

    x: Tensor
    last: Tensor
    pace: Tensor
    averages: Averages

    def forecasts(self, moves: Tensor) -> dict[str, Tensor]:
        """Moves [B, T, H, 1 + Q] in units of the pace -> ``mean`` [B, T, H] and ``quantiles`` [B, T, H, Q]."""
        said = self.last[..., None] + self.pace[..., None] * moves
        return {"mean": said[..., 0], "quantiles": said[..., 1:]}


def ascending(said: Tensor) -> Tensor:
    """[..., 1 + Q]: the mean, the lowest quantile, and the steps between quantiles before softplus -> mean and
    quantiles [..., 1 + Q]."""
    quantiles = [said[..., 1:2]]
    for i in range(2, said.shape[-1]):
        quantiles.append(quantiles[-1] + F.softplus(said[..., i : i + 1]))
    return torch.cat([said[..., :1], *quantiles], -1)


def expanded(x: Tensor) -> Tensor:
    """The inverse of :func:`models.forecast.network.compressed`."""
    return 0.5 * x * (x.abs() + (x.square() + 4).sqrt())


def sized(family: str, parameters: int, **settings: Any) -> SequenceForecaster:
    """The widest model of a family with at most ``parameters``; without a body, the narrowest."""
    step = HEADS if family == "transformer" else 1
    found = SequenceForecaster(SequenceConfig(family, HEADS, **settings))
    while LAYERS[family]:
        wider = SequenceForecaster(SequenceConfig(family, found.config.hidden + step, **settings))
        if sum(weight.numel() for weight in wider.parameters()) > parameters:
            break
        found = wider
    return found


def info(family: str, config: SequenceConfig) -> dict[str, Any]:
    """The ``info`` of the checkpoint."""
    seen = SequenceForecaster(config).context
    sees = "a memory without end" if seen is None else f"the last {seen} readings and running averages"
    return {
        "name": f"forecast-{family}",
        "task": "forecast",
        "input": {"name": "readings", "dtype": "float32", "chunk_shape": [1, 4], "step_seconds": 0.0},
        "options": {"quantiles": list(config.quantiles), "horizon": config.horizon},
        "data": "ETTh1 and ETTh2 (first twelve of twenty months), synthetic processes",
        "licence": "Apache-2.0; trained on ETDataset: CC BY-ND 4.0",
        "description": f"Forecasts a sensor {config.horizon} readings ahead: {family}, {config.hidden} wide, {sees}.",
    }
