"""A forecaster of several related sensors: rows of a table in, forecasts of the next rows of its targets out.

A network (:mod:`models.forecast.network`) sees all variables of a row, scaled by constants of the training rows, and
forecasts the move of each target from its last reading. Its weights are fixed. All that is learnt while it runs is
state, as in :mod:`models.forecast.online`: least squares on each target's past, and on the network's features (with one
covariance for all targets); a hedge over these, the network, persistence and "as a day ago", by the past errors of each
for each target and step ahead; quantiles that are calibrated on the issued ones.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.forecast.calibration import Adaptation, Calibration
from models.forecast.network import Network, NetworkConfig, compressed
from models.forecast.normalise import ABSURD, LIMIT, waves
from models.forecast.online import CLOCKS, Expert
from models.forecast.rls import Rls
from models.layers import State, Streaming, inner, outer

Floats = NDArray[np.float64]

#: Channels of the network for each variable: level, difference to the row before, freshness.
EACH = 3
#: Rows since the last reading are counted up to this number.
OLD = 1000.0
#: Least squares sees levels clipped to this many deviations, and moves to this many times their usual size, so that a
#: spike does not dominate for weeks, nor a constant far outside all other features.
FAR = 5.0
#: Prior variance of the readout's weights; small, because there are many features of size 1.
PRIOR_WEIGHTS = 0.1
#: Number of rows that the members' errors on validation rows count for.
PRIOR = 100.0
#: Share of a column's readings, at either end, that does not change its scale.
TAILS = 0.001


@dataclass(frozen=True)
class MultivariateConfig:
    """``variables``: columns of a row, in this order; ``targets``: those that are forecast. The other fields are as in
    :class:`models.forecast.online.OnlineConfig`."""

    variables: tuple[str, ...]
    targets: tuple[str, ...]
    network: NetworkConfig
    experts: tuple[Expert, ...] = (Expert(24, 0.999, 1), Expert(3, 0.9995, 1))
    readout: float = 0.9995
    day: int = 0  # rows of a day, 0: no daily season
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    sharpness: float = 4.0
    handicap: float = 0.05
    half_life: float = 1500.0
    memory: float = 2000.0
    pace: Adaptation = field(default_factory=Adaptation)

    @property
    def horizon(self) -> int:
        return self.network.horizon

    @property
    def channels(self) -> int:
        """Number of input channels: C values (anything where missing), C masks (1 where there is a reading), time of
        day and of week in [0, 1)."""
        return 2 * len(self.variables) + 2

    def to_dict(self) -> dict[str, Any]:
        names = {name: [*getattr(self, name)] for name in ("variables", "targets", "quantiles")}
        experts = [asdict(expert) for expert in self.experts]
        return {**asdict(self), **names, "experts": experts, "network": self.network.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MultivariateConfig:
        names = {name: tuple(values[name]) for name in ("variables", "targets", "quantiles")}
        nested = {
            "network": NetworkConfig.from_dict(values["network"]),
            "experts": tuple(Expert(**expert) for expert in values["experts"]),
            "pace": Adaptation(**values["pace"]),
        }
        return cls(**{**values, **names, **nested})


class Scaling(NamedTuple):
    """Constants [C] of the training rows: mean and deviation; in deviations: root mean square of the differences
    between rows, smallest and largest reading."""

    centre: Floats
    spread: Floats
    pace: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, values: Floats) -> Scaling:
        """From rows [N, C] with NaN. One reading in a thousand at either end is clipped, so that a spike does not make
        all other readings look alike; not in columns that are constant but for spikes."""
        tame = np.clip(values, *np.nanquantile(values, (TAILS, 1 - TAILS), axis=0))
        still = np.nanstd(tame, 0) <= 1e-9 * np.nanstd(values, 0)
        tame[:, still] = values[:, still]
        centre, spread = np.nanmean(tame, 0), np.nanstd(tame, 0)
        steps = np.diff(tame, axis=0)
        known = np.maximum((~np.isnan(steps)).sum(0), 1)
        pace = np.sqrt(np.nansum((steps / spread) ** 2, axis=0) / known).clip(0.01, None)
        ends = ((end(values, 0) - centre) / spread for end in (np.nanmin, np.nanmax))
        return cls(centre, spread, pace, *(end.clip(-LIMIT, LIMIT) for end in ends))


class Seen(NamedTuple):
    """Rows as the model sees them. ``value`` [B, T, C]: the last reading; ``level``: the same, in deviations from the
    training's mean; ``there``: 1 where it is of this row. ``inputs`` [B, T, 3 C + clock]: the network's input."""

    value: Tensor
    level: Tensor
    there: Tensor
    inputs: Tensor


class Now(NamedTuple):
    """One row. [B, K]: the targets' last readings, the same in deviations, 1 where they are of this row; time of day
    and of week [B, 2]; the network's features [B, F] and forecast moves [B, K, H], in deviations."""

    value: Tensor
    level: Tensor
    there: Tensor
    clock: Tensor
    features: Tensor
    change: Tensor


class Multivariate(Streaming):
    """``forward(x [B, T, 2 C + 2], state) -> (outputs, state)``; channels: see ``MultivariateConfig.channels``. Outputs
    for K targets, as in :class:`models.forecast.online.Online`: ``mean`` [B, T, K, H], ``quantiles`` [B, T, K, H, Q],
    ``anomaly`` and ``drift`` [B, T, K]."""

    receptive_field = None

    def __init__(self, config: MultivariateConfig) -> None:
        super().__init__()
        self.config = config
        variables, targets, horizon = len(config.variables), len(config.targets), config.horizon
        self.network = Network(config.network)
        self.readout = Rls(config.network.hidden + targets + 1, targets * horizon, config.readout, PRIOR_WEIGHTS)
        self.experts = nn.ModuleList(
            Rls(expert.lags + 2 + CLOCKS[expert.clock], horizon, expert.forget) for expert in config.experts
        )
        self.lags = max((expert.lags for expert in config.experts), default=0)
        self.calibration = Calibration(horizon, config.quantiles, config.pace)
        self.register_buffer("chosen", torch.tensor([config.variables.index(name) for name in config.targets]))
        # constants of the training rows, one for each variable: see :func:`set_scaling`
        for name, start in (("centre", 0.0), ("spread", 1.0), ("pace", 1.0), ("low", -LIMIT), ("high", LIMIT)):
            self.register_buffer(name, torch.full((variables,), start))
        # mean squared errors of the members on validation rows, in deviations
        self.naive = 1 + bool(config.day)  # persistence, as a day ago
        self.members = self.naive + len(config.experts) + 2  # readout and network
        self.register_buffer("prior", torch.ones(targets, horizon, self.members))
        self.register_buffer(
            "odds",
            torch.tensor([1.0] * self.naive + [1 + config.handicap] * (self.members - self.naive)),
            persistent=False,
        )
        # window[age, lag]: where the level of ``age + lag`` rows ago lies, newest first
        ages, lags = torch.arange(horizon + 1)[:, None], torch.arange(self.lags + 1)[None]
        self.register_buffer("window", ages + lags, persistent=False)
        ahead, day = torch.arange(1, horizon + 1), max(1, config.day)
        back = day * ((ahead + day - 1) // day)  # whole days, at least as many rows as the step ahead
        self.register_buffer("then", torch.stack([back - ahead, back]), persistent=False)
        self.past = max(horizon + self.lags, int(back[-1]) if config.day else 0)  # levels that are kept

    def initial_state(self, batch: int) -> State:
        variables, targets, horizon = len(self.config.variables), len(self.config.targets), self.config.horizon
        return {
            "value": torch.zeros(batch, variables),
            "begun": torch.zeros(batch, variables),  # 1: there has been a reading
            "age": torch.zeros(batch, variables),  # rows since then
            "count": torch.zeros(batch, targets),
            "below": torch.zeros(batch, targets),  # distance outside of the training's range so far
            "above": torch.zeros(batch, targets),
            # of 1 to H rows ago, newest first
            "levels": torch.zeros(batch, targets, self.past),
            "there": torch.zeros(batch, targets, horizon),
            "clock": torch.zeros(batch, horizon, 2),
            "features": torch.zeros(batch, horizon, self.readout.features),
            "said": torch.zeros(
                batch, horizon, targets, horizon, self.members - self.naive
            ),  # forecasts of all members but the naive ones
            "losses": torch.zeros(batch, targets, horizon, self.members),
            "learnt": torch.zeros(batch, targets, horizon, 1),  # share of the prior that is forgotten
            **self._each(batch * targets),
            **outer(self.network.initial_state(batch), "network"),
            **outer(self.readout.initial_state(batch), "readout"),
        }

    def _each(self, batch: int) -> State:
        """The state of the parts that each target has separately, [B, K, ...]."""
        state = outer(self.calibration.initial_state(batch), "calibration")
        for number, expert in enumerate(self.experts):
            state |= outer(expert.initial_state(batch), f"expert{number}")
        return {name: tensor.unflatten(0, (-1, len(self.config.targets))) for name, tensor in state.items()}

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        seen, state = self.see(x, state)
        (features, change), part = self.network(seen.inputs, inner(state, "network"))
        state = state | outer(part, "network")
        # [B, T, K, H], in deviations
        change = change.unflatten(2, (-1, self.config.horizon)) * self.pace[self.chosen, None]
        rows: dict[str, list[Tensor]] = {"mean": [], "quantiles": [], "anomaly": [], "drift": []}
        for t in range(x.shape[1]):
            row = Now(*(tensor[:, t, self.chosen] for tensor in seen[:3]), x[:, t, -2:], features[:, t], change[:, t])
            answers, state = self._step(row, state)
            for name, answer in answers.items():
                rows[name].append(answer)
        return {name: torch.stack(row, 1) for name, row in rows.items()}, state

    def see(self, x: Tensor, state: State) -> tuple[Seen, State]:
        """Rows [B, T, 2 C + 2] with missing readings filled, and the state after them."""
        count = len(self.config.variables)
        there = ((x[..., count : 2 * count] > 0.5) & (x[..., :count].abs() < ABSURD)).to(x.dtype)  # false for NaN, too
        value, begun, age = state["value"], state["begun"], state["age"]
        befores, values, fresh, firsts = [], [], [], []
        for t in range(x.shape[1]):
            now = there[:, t]
            before = torch.where(begun > 0, value, self.centre)
            value = torch.where(now > 0, x[:, t, :count], before)
            age = torch.where(now > 0, torch.zeros_like(age), (age + 1).clamp(max=OLD))
            firsts.append(begun)
            begun = torch.maximum(begun, now)
            befores.append(before)
            values.append(value)
            fresh.append(begun / (1 + age))
        held = torch.stack(values, 1)
        level, last = (((v - self.centre) / self.spread).clamp(-LIMIT, LIMIT) for v in (held, torch.stack(befores, 1)))
        step = (level - last) / self.pace * torch.stack(firsts, 1)
        clock = waves(x[..., 2 * count :])[..., : self.config.network.clock]
        inputs = torch.cat([compressed(level), compressed(step), torch.stack(fresh, 1), clock], -1)
        return Seen(held, level, there, inputs), state | {"value": value, "begun": begun, "age": age}

    def _step(self, now: Now, state: State) -> tuple[dict[str, Tensor], State]:
        config, new = self.config, State()
        horizon, level, there = config.horizon, now.level, now.there
        begins = (there * (state["count"] == 0))[:, :, None]
        before = torch.where(begins > 0, level[:, :, None], state["levels"])
        levels = torch.cat([level[:, :, None], before], 2)  # [B, K, 1 + past], newest first
        past = levels[:, :, 1 : horizon + 1]  # [B, K, H]
        known = there[:, :, None] * state["there"]
        usual = FAR * self.prior[..., 0].sqrt().clamp(min=0.01)  # [K, H]: larger moves are clipped
        labels = torch.minimum(torch.maximum(level[:, :, None] - past, -usual), usual)
        clock = torch.cat([now.clock[:, None], state["clock"]], 1)
        said, part = self._experts(levels, labels, known, there, clock, state)
        new |= part
        features = torch.cat([now.features, level.clamp(-FAR, FAR), torch.ones_like(level[:, :1])], 1)
        then = state["features"][:, None].expand(-1, len(config.targets), -1, -1).flatten(1, 2)  # [B, K * H, F]
        fresh, learnt = there.amax(1, keepdim=True), inner(state, "readout")
        read, part = self.readout(features, then, labels.flatten(1), known.flatten(1), fresh, learnt)
        new |= outer(part, "readout")

        # the forecasts of the members [B, K, H, M], within the range seen in training or since; the naive ones first
        fade = 1 - 1 / config.memory
        floor, ceiling = self.low[self.chosen], self.high[self.chosen]
        new["below"] = torch.maximum(state["below"] * fade, floor - level)
        new["above"] = torch.maximum(state["above"] * fade, level - ceiling)
        low, high = ((floor - new["below"])[:, :, None], (ceiling + new["above"])[:, :, None])
        own = level[:, :, None]
        foretold = [*said, read.unflatten(1, (-1, horizon)), now.change]
        others = torch.stack([torch.minimum(torch.maximum(own + move, low), high) for move in foretold], 3)
        # and the ones issued h rows ago for this row
        due = torch.diagonal(state["said"], dim1=1, dim2=3).permute(0, 1, 3, 2)
        naive, dues = [own.expand(-1, -1, horizon)], [past]
        if config.day:
            naive, dues = [*naive, levels[:, :, self.then[0]]], [*dues, levels[:, :, self.then[1]]]
        errors = level[:, :, None, None] - torch.cat([torch.stack(dues, 3), due], 3)
        kept = 0.5 ** (known[..., None] / config.half_life)  # 1 where nothing is known
        errors = torch.minimum(errors.abs(), usual[..., None])
        losses = kept * state["losses"] + (1 - kept) * errors.square()
        # a loss changes only where the row ``h`` before had a reading, so a broken one would last long
        losses = losses.clamp(max=LIMIT**2)
        faded = (1 - kept * (1 - state["learnt"])).clamp(max=1.0)
        moves = torch.cat([torch.stack(naive, 3), others], 3) - own[..., None]
        moved = (self.hedge(losses, faded) * moves).sum(3)
        mean = now.value[:, :, None] + self.spread[self.chosen, None] * moved
        count = (state["count"] + there).clamp(max=config.memory)
        answers, part = self._intervals(mean, now.value, known, count, state)
        new |= part | {
            "count": count,
            "levels": levels[:, :, :-1],
            "there": torch.cat([there[:, :, None], state["there"][:, :, :-1]], 2),
            "clock": clock[:, :-1],
            "features": torch.cat([features[:, None], state["features"][:, :-1]], 1),
            "said": torch.cat([others[:, None], state["said"][:, :-1]], 1),
            "losses": losses,
            "learnt": faded,
        }
        return {"mean": mean, **answers}, state | new

    def _experts(
        self, levels: Tensor, labels: Tensor, known: Tensor, there: Tensor, clock: Tensor, state: State
    ) -> tuple[list[Tensor], State]:
        """The moves [B, K, H] that each expert forecasts from a target's own past, as in
        :class:`models.forecast.online.Online`."""
        new, said, targets = State(), list[Tensor](), len(self.config.targets)
        window = levels.flatten(0, 1)[:, self.window]  # [B * K, 1 + H, 1 + lags]
        base = window[:, :, :1]
        pace = (torch.ones_like(there) * FAR * self.pace[self.chosen]).flatten()[:, None, None]
        steps = torch.minimum(torch.maximum(window[:, :, :-1] - window[:, :, 1:], -pace), pace)
        beat = waves(clock)[:, None].expand(-1, targets, -1, -1).flatten(0, 1)
        labels, known, fresh = labels.flatten(0, 1), known.flatten(0, 1), there.flatten(0, 1)[:, None]
        for number, (expert, plan) in enumerate(zip(self.experts, self.config.experts, strict=True)):
            parts = [
                steps[:, :, : plan.lags],
                base.clamp(-FAR, FAR),
                torch.ones_like(base),
                beat[:, :, : CLOCKS[plan.clock]],
            ]
            features = torch.cat(parts, 2)
            learnt = {name: tensor.flatten(0, 1) for name, tensor in inner(state, f"expert{number}").items()}
            answer, part = expert(features[:, 0], features[:, 1:], labels, known, fresh, learnt)
            said.append(answer.unflatten(0, (-1, targets)))
            new |= outer({name: t.unflatten(0, (-1, targets)) for name, t in part.items()}, f"expert{number}")
        return said, new

    def _intervals(
        self, mean: Tensor, value: Tensor, known: Tensor, count: Tensor, state: State
    ) -> tuple[dict[str, Tensor], State]:
        targets = len(self.config.targets)
        scale = torch.ones_like(value) * self.spread[self.chosen]
        columns = (value, count, scale, scale * self.pace[self.chosen])
        value, count, scale, pace = (tensor.flatten(0, 1)[:, None] for tensor in columns)
        before = {name: tensor.flatten(0, 1) for name, tensor in inner(state, "calibration").items()}
        before["size"] = before["size"].clamp(max=10 * LIMIT)  # for the same reason as the losses
        quantiles, anomaly, drift, part = self.calibration(
            mean.flatten(0, 1), value, known.flatten(0, 1), count, scale, pace, before
        )
        answers = {"quantiles": quantiles, "anomaly": anomaly[:, 0], "drift": drift[:, 0]}
        answers, new = (
            {name: tensor.unflatten(0, (-1, targets)) for name, tensor in tensors.items()}
            for tensors in (answers, part)
        )
        return answers, outer(new, "calibration")

    def hedge(self, losses: Tensor, learnt: Tensor) -> Tensor:
        """Weights [B, K, H, M], as in :class:`models.forecast.online.Online`, with a prior whose influence decays."""
        found = (losses + PRIOR * (math.log(2) / self.config.half_life) * (1 - learnt) * self.prior) * self.odds
        best = found.amin(-1, keepdim=True)
        return torch.softmax(-self.config.sharpness * (found - best) / best.clamp(min=1e-9), -1)

    def set_scaling(self, scaling: Scaling) -> None:
        for name, values in scaling._asdict().items():
            getattr(self, name).copy_(torch.from_numpy(values))
