"""A forecaster that learns while it runs, inside the graph: all that it learns is state.

For each reading of a sensor it answers with a mean and quantiles for every step of the horizon, how probable the
reading was, and how much the sensor has drifted. Inside are a few linear experts, each fitted by recursive least
squares with forgetting (Haykin, Adaptive Filter Theory, chapter on RLS): from differences of the last readings, the
level, and harmonics of the time of day and week, to each step ahead directly, relative to the last reading. Labels come
``h`` readings late for step ``h`` and are used the moment they come. Persistence is an expert, too. If there is a
trained :class:`models.forecast.network.Network`, its forecast is one more expert, and least squares on its features
another. "As a day ago" and "as a week ago" are experts where that is not too many readings ago. What is answered is a
mixture whose weights follow every expert's own discounted loss, for each step of the horizon apart (exponential
weights, Cesa-Bianchi and Lugosi 2006, section 2.1, on relative loss); no expert may leave the range of what the sensor
has shown. Quantiles: :mod:`models.forecast.calibration`.

It must live for years in float32, which is what the oddities are for: features are *successive* differences in units of
the sensor's own scale (differences to the last reading are all alike, and a covariance of theirs loses its positive
eigenvalues in days); a gain never exceeds what takes the error to zero (the scale may have moved since the covariance
saw those features); the covariance's mean eigenvalue is bounded (a stuck sensor excites nothing, and forgetting would
blow it up), and a little is added to all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.forecast.calibration import Calibration, Pace
from models.forecast.network import Network, NetworkConfig, inputs
from models.forecast.normalise import (
    DAY_HARMONICS,
    LIMIT,
    WARM,
    WEEK_HARMONICS,
    Averages,
    follow,
    near,
    pace_of,
    waves,
)
from models.forecast.novelty import Novelty
from models.forecast.rls import Rls
from models.layers import State, Streaming, inner, outer

#: Channels of the input: reading (anything where missing), 1 if it is there else 0, time of day and of week in [0, 1).
CHANNELS = 4
#: Readings beyond this are no readings: their squares are no numbers.
ABSURD = 1e15
#: Channels of the clock's harmonics, by an expert's ``clock``.
CLOCKS = (0, 2 * DAY_HARMONICS, 2 * (DAY_HARMONICS + WEEK_HARMONICS))


@dataclass(frozen=True)
class Expert:
    """``lags``: differences seen. ``forget``: of the weight of the past with each reading. ``clock``: harmonics of
    the day (1), and of the week as well (2)."""

    lags: int
    forget: float
    clock: int = 1


@dataclass(frozen=True)
class OnlineConfig:
    horizon: int = 24
    experts: tuple[Expert, ...] = (Expert(24, 0.999, 1), Expert(3, 0.9995, 1))
    seasons: tuple[float, ...] = (1.0, 7.0)  # days after which it may be as it was
    season: int = 288  # readings of the longest that is looked for
    network: NetworkConfig | None = None
    readout: float = 0.9999  # forgetting of the least squares on the network's features
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    sharpness: float = 20.0  # how much worse an expert must have been to lose its weight
    handicap: float = 0.05  # by so much of its loss persistence is preferred
    half_life: float = 1500.0  # readings after which a loss counts half
    memory: float = 2000.0  # readings over which level, scale and range are averaged
    pace: Pace = field(default_factory=Pace)

    def to_dict(self) -> dict[str, Any]:
        network = self.network.to_dict() if self.network else None
        experts = [asdict(expert) for expert in self.experts]
        return {
            **asdict(self),
            "experts": experts,
            "network": network,
            "quantiles": [*self.quantiles],
            "seasons": [*self.seasons],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OnlineConfig:
        return cls(
            **{
                **values,
                "experts": tuple(Expert(**expert) for expert in values["experts"]),
                "network": NetworkConfig.from_dict(values["network"]) if values["network"] else None,
                "quantiles": tuple(values["quantiles"]),
                "seasons": tuple(values.get("seasons", cls.seasons)),  # older checkpoints have none
                "pace": Pace(**values["pace"]),
            }
        )


class Online(Streaming):
    """``forward(x [B, T, 4], state) -> (outputs, state)``; channels: see ``CHANNELS``. Outputs: ``mean`` [B, T, H],
    ``quantiles`` [B, T, H, Q], ``anomaly`` [B, T] (how often a reading is so far from what was expected or was ever
    shown; 1 if there is none) and ``drift`` [B, T] (residuals of the last day over those of a season; 1: as ever).

    Everything is causal: the answer to a reading depends on it and on what came before.
    """

    receptive_field = None

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        self.config = config
        horizon, self.lags = config.horizon, max(expert.lags for expert in config.experts)
        self.ring = max(self.lags + horizon, config.season if config.seasons else 0) + 1  # readings
        self.experts = nn.ModuleList(
            Rls(expert.lags + 2 + CLOCKS[expert.clock], horizon, expert.forget) for expert in config.experts
        )
        if config.network:
            if config.network.horizon < horizon:
                raise ValueError(f"the network looks {config.network.horizon} steps ahead, not {horizon}")
            self.network = Network(config.network)
            self.readout = Rls(config.network.hidden + 2, horizon, config.readout)
        self.naive = 1 + len(config.seasons)
        self.members = self.naive + len(config.experts) + 2 * bool(config.network)
        self.calibration = Calibration(horizon, config.quantiles, config.pace)
        self.novelty = Novelty()
        # window[age, lag]: where the reading of ``age + lag`` ago lies in the ring, the newest being last
        ages, lags = torch.arange(horizon + 1)[:, None], torch.arange(self.lags + 1)[None]
        self.register_buffer("window", self.ring - 1 - ages - lags, persistent=False)
        self.register_buffer("odds", torch.tensor([1.0] + [1 + config.handicap] * (self.members - 1)), persistent=False)

    def initial_state(self, batch: int) -> State:
        horizon = self.config.horizon
        state = {
            "ring": torch.zeros(batch, self.ring),
            "there": torch.zeros(batch, self.ring),
            "clock": torch.zeros(batch, horizon + 1, 2),  # newest first
            "count": torch.zeros(batch, 1),
            "level": torch.zeros(batch, 1),
            "variance": torch.zeros(batch, 1),
            "usual": torch.zeros(batch, 1),  # distance from the level
            "squares": torch.zeros(batch, 1),  # of differences, their mean
            "low": torch.zeros(batch, 1),
            "high": torch.zeros(batch, 1),
            "losses": torch.zeros(batch, horizon, self.members),
            # by every member but the naive ones, 1 to H readings ago
            "said": torch.zeros(batch, horizon, horizon, self.members - self.naive),
        }
        for i, expert in enumerate(self.experts):
            state |= outer(expert.initial_state(batch), f"expert{i}")
        if self.config.network:
            state |= outer(self.network.initial_state(batch), "network")
            state |= outer(self.readout.initial_state(batch), "readout")
            state["features"] = torch.zeros(batch, horizon, self.readout.features)  # of 1 to H readings ago
        state |= outer(self.calibration.initial_state(batch), "calibration")
        return state | outer(self.novelty.initial_state(batch), "novelty")

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        rows: dict[str, list[Tensor]] = {"mean": [], "quantiles": [], "anomaly": [], "drift": []}
        for t in range(x.shape[1]):
            answers, state = self.step(x[:, t], state)
            for name, answer in answers.items():
                rows[name].append(answer)
        return {name: torch.stack(row, 1) for name, row in rows.items()}, state

    def step(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        """One reading [B, 4]: what :meth:`forward` says of it, and the state."""
        config, new = self.config, State()
        last = state["ring"][:, -1:]
        there = ((x[:, 1:2] > 0.5) & (x[:, :1].abs() < ABSURD)).to(x.dtype)  # false for NaN, too
        value = torch.where(there > 0, x[:, :1], last)
        begins = there * (state["count"] == 0).to(x.dtype)
        readings = torch.cat([state["ring"][:, 1:], value], 1)
        readings = torch.where(begins > 0, value.expand_as(readings), readings)
        present = torch.cat([state["there"][:, 1:], there], 1)
        clock = torch.cat([x[:, None, 2:4], state["clock"][:, :-1]], 1)

        before = Averages(*(state[name] for name in Averages._fields if name != "last"), last)
        tame = near(value, before)
        after, scale, change = follow(value, there, before, config.memory)
        count, level = after.count, after.level
        low = torch.where(begins > 0, value, state["low"] + (level - state["low"]).clamp(min=0.0) / config.memory)
        high = torch.where(begins > 0, value, state["high"] - (state["high"] - level).clamp(min=0.0) / config.memory)
        low, high = torch.minimum(low, tame), torch.maximum(high, tame)
        warm = (count > WARM).to(x.dtype)

        window = readings[:, self.window]  # [B, 1 + H, 1 + lags]
        base = window[:, :, 0]
        steps = ((window[:, :, 1:] - window[:, :, :-1]) / scale[:, :, None]).clamp(-LIMIT, LIMIT)
        above = ((base - level) / scale).clamp(-LIMIT, LIMIT)[:, :, None]
        one = torch.ones_like(above)
        beat = waves(clock)
        labels = ((value - base[:, 1:]) / scale).clamp(-LIMIT, LIMIT)
        known = there * present[:, self.window[1:, 0]] * warm
        fresh = there * warm
        answers = []
        for i, (expert, plan) in enumerate(zip(self.experts, config.experts, strict=True)):
            features = torch.cat([steps[:, :, : plan.lags], above, one, beat[:, :, : CLOCKS[plan.clock]]], 2)
            answer, part = expert(features[:, 0], features[:, 1:], labels, known, fresh, inner(state, f"expert{i}"))
            answers.append(answer)
            new |= outer(part, f"expert{i}")
        if config.network:
            seen = inputs(after, scale, change, there, beat[:, 0, : config.network.clock], config.memory)
            (features, ahead), part = self.network(seen[:, None], inner(state, "network"))
            new |= outer(part, "network")
            now = torch.cat([features[:, 0], above[:, 0], one[:, 0]], 1)
            answer, part = self.readout(now, state["features"], labels, known, fresh, inner(state, "readout"))
            new |= outer(part, "readout")
            new["features"] = torch.cat([now[:, None], state["features"][:, :-1]], 1)
            answers += [answer, ahead[:, 0, : config.horizon] * pace_of(after.squares, scale) / scale]

        # what each member says now [B, H, M], within what the sensor has shown; the naive ones first
        said = torch.stack([torch.minimum(torch.maximum(value + scale * a, low), high) for a in answers], 2)
        ahead, past = self.seasonal(readings, clock, count)
        ahead = [torch.minimum(torch.maximum(a, low[:, None]), high[:, None]) for a in ahead]
        members = torch.cat([value[:, None].expand(-1, config.horizon, 1), *ahead, said], 2)
        # and what it said h readings ago for this one: not what it would say by now, with what it has learnt since
        due = torch.diagonal(state["said"], dim1=1, dim2=2).transpose(1, 2)
        errors = (value[:, None] - torch.cat([base[:, 1:, None], *past, due], 2)) / scale[:, None]
        kept = 0.5 ** (1.0 / config.half_life)
        losses = kept * state["losses"] + (1 - kept) * errors.clamp(-LIMIT, LIMIT).square()
        losses = torch.where(known[:, :, None] > 0, losses, state["losses"])
        mean = (self.hedge(losses) * members).sum(2)
        quantiles, surprise, drift, part = self.calibration(
            mean, value, known, count, scale, pace_of(after.squares, scale), inner(state, "calibration")
        )
        new |= outer(part, "calibration")
        anomaly, part = self.novelty(value, there, x[:, 2:3], scale, surprise, inner(state, "novelty"))
        new |= outer(part, "novelty")
        new |= {name: average for name, average in after._asdict().items() if name != "last"}
        new |= {
            "ring": readings,
            "there": present,
            "clock": clock,
            "low": low,
            "high": high,
            "losses": losses,
            "said": torch.cat([said[:, None], state["said"][:, :-1]], 1),
        }
        return {"mean": mean, "quantiles": quantiles, "anomaly": anomaly[:, 0], "drift": drift[:, 0]}, new

    def seasonal(self, readings: Tensor, clock: Tensor, count: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """For each season what it says for the steps ahead, and what it said 1 to H readings ago for now, each
        [B, H, 1]: the reading at the same phase, the last one that is known then. The last reading where the season is
        no whole number of readings, or too long, or not over yet."""
        turn = clock[:, 0, 1:] - clock[:, 1, 1:]
        turn = turn - turn.floor()  # of a week, from one reading to the next
        steps = torch.arange(1, self.config.horizon + 1, dtype=readings.dtype)
        ahead, past = [], []
        for days in self.config.seasons:
            exact = days / 7 / turn.clamp(min=1e-6)
            period = exact.round()
            fits = ((exact - period).abs() < 0.01 * period) & (period > 1)
            back = period.clamp(min=2.0) * (steps / period.clamp(min=2.0)).ceil()  # [B, H]
            known = fits & (back < self.ring) & (count > back)
            for out, lag, otherwise in ((ahead, back - steps, 0 * steps), (past, back, steps)):
                at = self.ring - 1 - torch.where(known, lag, otherwise.expand_as(lag))
                out.append(torch.gather(readings, 1, at.clamp(min=0).long())[:, :, None])
        return ahead, past

    def hedge(self, losses: Tensor) -> Tensor:
        """Weights [B, H, members] from discounted losses; where there are none yet, persistence alone."""
        handicapped = losses * self.odds
        best = handicapped.amin(2, keepdim=True)
        weights = torch.softmax(-self.config.sharpness * (handicapped - best) / best.clamp(min=1e-9), 2)
        seen = (losses.amax(2, keepdim=True) > 0).to(losses.dtype)
        first = torch.zeros_like(weights) + (torch.arange(self.members) == 0).to(losses.dtype)
        return seen * weights + (1 - seen) * first


def info(name: str, config: OnlineConfig) -> dict[str, Any]:
    """What a checkpoint says of itself (see :func:`models.load`): there is nothing to train."""
    return {
        "name": name,
        "task": "forecast",
        "input": {"name": "readings", "dtype": "float32", "chunk_shape": [1, CHANNELS], "step_seconds": 0.0},
        "options": {"quantiles": list(config.quantiles), "horizon": config.horizon},
        "data": "none: it learns from each stream alone, while it runs",
        "licence": "Apache-2.0",
        "description": "Forecasts any sensor from its first day on: linear experts fitted online, hedged, with "
        "quantiles that are calibrated while it runs.",
    }
