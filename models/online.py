"""A forecaster that learns while it runs, inside the graph: no training before, all that it learns is state.

For each reading of a sensor it answers with a mean and quantiles for every step of the horizon. Inside are a few linear
experts, each fitted by recursive least squares with forgetting (Haykin, Adaptive Filter Theory, chapter on RLS): from
differences of the last readings, the level, and harmonics of the time of day and week, to each step ahead directly,
relative to the last reading. Labels come ``h`` readings late for step ``h`` and are used the moment they come.
Persistence is an expert, too. What is answered is a mixture whose weights follow every expert's own discounted loss,
for each step of the horizon apart (exponential weights, Cesa-Bianchi and Lugosi 2006, section 2.1, on relative loss).
Quantiles are tracked by the online subgradient of the pinball loss on the residuals of the forecasts that were given
out, so that they stay calibrated whatever the experts do (Gibbs and Candes 2021, arXiv 2106.00170).

It must live for years in float32, which is what the oddities are for: features are *successive* differences in units of
the sensor's own scale (differences to the last reading are all alike, and a covariance of theirs loses its positive
eigenvalues in days); a gain never exceeds what takes the error to zero (the scale may have moved since the covariance
saw those features); the covariance's mean eigenvalue is bounded (a stuck sensor excites nothing, and forgetting would
blow it up), and a little is added to all of them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import State, Streaming, inner, outer

#: Channels of the input: reading (anything where missing), 1 if it is there else 0, time of day and of week in [0, 1).
CHANNELS = 4
#: Features and labels, in units of the sensor's scale, are cut to this range: a spike must not rule for weeks.
LIMIT = 20.0


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
    experts: tuple[Expert, ...] = (
        Expert(6, 0.995, 0),
        Expert(24, 0.999, 1),
        Expert(24, 0.9998, 2),
    )
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    day: int = 4  # harmonics
    week: int = 2
    sharpness: float = 20.0  # how much worse an expert must have been to lose its weight
    half_life: float = 500.0  # readings after which a loss counts half
    memory: float = 2000.0  # readings over which level and scale are averaged
    pace: float = 0.02  # of the quantiles, in units of the residuals' own size
    warm: int = 24  # readings before anything is fitted: the scale must be known

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "experts": [asdict(expert) for expert in self.experts], "quantiles": [*self.quantiles]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> OnlineConfig:
        experts = tuple(Expert(**expert) for expert in values["experts"])
        return cls(**{**values, "experts": experts, "quantiles": tuple(values["quantiles"])})


class Rls(nn.Module):
    """Recursive least squares for ``horizon`` labels of one set of features, all with one covariance.

    State: ``covariance`` [B, F, F] as its offset from the start ``prior * I``, ``weights`` [B, H, F].

    All sums run over the last axis: ONNX Runtime adds up the others in another order when the batch is one stream.
    """

    def __init__(self, features: int, horizon: int, forget: float, prior: float = 1.0, bound: float = 1e4) -> None:
        super().__init__()
        self.features, self.horizon, self.forget, self.bound = features, horizon, forget, bound * prior
        self.register_buffer("start", torch.eye(features) * prior, persistent=False)
        self.register_buffer("eye", torch.eye(features), persistent=False)

    def initial_state(self, batch: int) -> State:
        return {
            "covariance": torch.zeros(batch, self.features, self.features),
            "weights": torch.zeros(batch, self.horizon, self.features),
        }

    def forward(
        self, now: Tensor, past: Tensor, labels: Tensor, known: Tensor, fresh: Tensor, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """Forecast [B, H] and the errors [B, H] of what it would have said before it saw the labels.

        ``now`` [B, F]: features; ``past`` [B, H, F]: those of 1 to H readings ago, to which ``labels`` [B, H] belong
        where ``known`` [B, H] is 1; ``fresh`` [B, 1]: 1 where ``now`` counts.
        """
        old = self.start + state["covariance"]
        towards = (old @ now[:, :, None])[:, :, 0]  # [B, F]
        spread = self.forget + (now * towards).sum(1)
        seen = (old - towards[:, :, None] * towards[:, None, :] / spread[:, None, None]) / self.forget
        seen = (seen + seen.transpose(1, 2)) / 2 + 1e-5 * self.start
        mean = (seen * self.eye).sum((1, 2)) / self.features  # of the eigenvalues
        seen = seen * (self.bound / mean.clamp(min=self.bound))[:, None, None]
        covariance = torch.where(fresh[:, :, None] > 0, seen, old)
        gains = past @ covariance  # [B, H, F]
        reach = (gains * past).sum(2)
        gains = gains / reach.clamp(min=1.0)[:, :, None]
        weights = state["weights"]
        errors = (labels - (past * weights).sum(2)) * known
        weights = weights + gains * errors[:, :, None]
        forecast = (weights * now[:, None]).sum(2)
        return forecast, errors, {"covariance": covariance - self.start, "weights": weights}


def harmonics(phase: Tensor, count: int) -> Tensor:
    """sin and cos of 1 to ``count`` times the angle of ``phase`` [..., 1] in [0, 1): [..., 2 * count].

    By sums and products alone (Taylor, then addition theorems; error below 1e-5): a runtime's own sine rounds
    differently at the end of an array, so that it would depend on who shares the batch.
    """
    half = math.pi * (phase.clamp(0.0, 1.0) - 0.5)  # half the angle, less a quarter turn
    square = half * half
    s, c, sine, cosine = half, torch.ones_like(half), half, torch.ones_like(half)
    for k in range(1, 7):
        c = c * square * (-1.0 / ((2 * k - 1) * (2 * k)))
        s = s * square * (-1.0 / ((2 * k) * (2 * k + 1)))
        sine, cosine = sine + s, cosine + c
    # sin(2h + pi) = -2 sin h cos h, cos(2h + pi) = 2 sin^2 h - 1
    first = (-2.0 * sine * cosine, 2.0 * sine * sine - 1.0)
    waves = [first]
    for _ in range(count - 1):
        s, c = waves[-1]
        waves.append((s * first[1] + c * first[0], c * first[1] - s * first[0]))
    return torch.cat([wave for pair in waves for wave in pair], -1)


class Online(Streaming):
    """``forward(x [B, T, 4], state) -> ({"mean": [B, T, H], "quantiles": [B, T, H, Q]}, state)``; channels: see
    ``CHANNELS``. Everything is causal: the answer to a reading depends on it and on what came before."""

    receptive_field = None

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        self.config = config
        horizon, self.lags = config.horizon, max(expert.lags for expert in config.experts)
        self.ring = self.lags + horizon + 1  # readings
        clocks = (0, 2 * config.day, 2 * (config.day + config.week))
        self.clocks = [clocks[expert.clock] for expert in config.experts]
        self.experts = nn.ModuleList(
            Rls(expert.lags + 2 + clock, horizon, expert.forget)
            for expert, clock in zip(config.experts, self.clocks, strict=True)
        )
        # window[age, lag]: where the reading of ``age + lag`` ago lies in the ring, the newest being last
        ages, lags = torch.arange(horizon + 1)[:, None], torch.arange(self.lags + 1)[None]
        self.register_buffer("window", self.ring - 1 - ages - lags, persistent=False)
        self.register_buffer("levels", torch.tensor(config.quantiles), persistent=False)
        self.register_buffer("gauss", math.sqrt(2) * torch.erfinv(2 * self.levels - 1), persistent=False)

    def initial_state(self, batch: int) -> State:
        horizon, count = self.config.horizon, len(self.config.quantiles)
        state = {
            "ring": torch.zeros(batch, self.ring),
            "there": torch.zeros(batch, self.ring),
            "clock": torch.zeros(batch, horizon + 1, 2),  # newest first
            "count": torch.zeros(batch, 1),
            "level": torch.zeros(batch, 1),
            "variance": torch.zeros(batch, 1),
            "given": torch.zeros(batch, horizon, horizon),  # means of 1 to H readings ago, newest first
            "losses": torch.zeros(batch, horizon, len(self.experts) + 1),
            "size": torch.zeros(batch, horizon),  # of residuals
            "tracked": torch.zeros(batch, horizon, count),
        }
        for i, expert in enumerate(self.experts):
            state |= outer(expert.initial_state(batch), f"expert{i}")
        return state

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        means, quantiles = [], []
        for t in range(x.shape[1]):
            mean, spread, state = self.step(x[:, t], state)
            means.append(mean)
            quantiles.append(spread)
        return {"mean": torch.stack(means, 1), "quantiles": torch.stack(quantiles, 1)}, state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """One reading [B, 4]: mean [B, H], quantiles [B, H, Q], state."""
        config = self.config
        last = state["ring"][:, -1:]
        value = x[:, :1]
        there = ((x[:, 1:2] > 0.5) & (value.abs() < 1e30)).to(x.dtype)  # false for NaN, too
        value = torch.where(there > 0, value, last)
        begins = there * (state["count"] == 0).to(x.dtype)
        count = (state["count"] + there).clamp(max=config.memory)
        readings = torch.cat([state["ring"][:, 1:], value], 1)
        readings = torch.where(begins > 0, value.expand_as(readings), readings)
        present = torch.cat([state["there"][:, 1:], there], 1)
        clock = torch.cat([x[:, None, 2:4], state["clock"][:, :-1]], 1)

        share = there / count.clamp(min=1.0)
        level = state["level"] + share * (value - state["level"])
        variance = state["variance"] + share * ((value - level).square() - state["variance"])
        # not "+ 1e-12": the exporter's optimiser takes an addition below 1e-8 for one of zero, and drops it
        scale = torch.maximum(variance, 1e-12 * level.square()).clamp(min=1e-12).sqrt()
        warm = (count > config.warm).to(x.dtype)

        window = readings[:, self.window]  # [B, 1 + H, 1 + lags]
        base = window[:, :, 0]
        steps = ((window[:, :, 1:] - window[:, :, :-1]) / scale[:, :, None]).clamp(-LIMIT, LIMIT)
        above = ((base - level) / scale).clamp(-LIMIT, LIMIT)[:, :, None]
        one = torch.ones_like(above)
        waves = torch.cat(
            [harmonics(clock[:, :, :1], config.day), harmonics(clock[:, :, 1:], config.week)], 2
        )  # those of the day first
        labels = ((value - base[:, 1:]) / scale).clamp(-LIMIT, LIMIT)
        known = there * present[:, self.window[1:, 0]] * warm
        new: State = {}
        answers, errors = [torch.zeros_like(labels)], [labels * known]
        for i, (expert, plan, clocks) in enumerate(zip(self.experts, config.experts, self.clocks, strict=True)):
            features = torch.cat([steps[:, :, : plan.lags], above, one, waves[:, :, :clocks]], 2)
            answer, error, part = expert(
                features[:, 0], features[:, 1:], labels, known, there * warm, inner(state, f"expert{i}")
            )
            answers.append(answer.clamp(-LIMIT, LIMIT))
            errors.append(error.clamp(-LIMIT, LIMIT))
            new |= outer(part, f"expert{i}")

        kept = 0.5 ** (1.0 / config.half_life)
        losses = state["losses"]
        losses = torch.where(
            known[:, :, None] > 0, kept * losses + (1 - kept) * torch.stack(errors, 2).square(), losses
        )
        best = losses.amin(2, keepdim=True)
        weights = torch.softmax(-config.sharpness * (losses - best) / best.clamp(min=1e-9), 2)
        mean = value + scale * (weights * torch.stack(answers, 2)).sum(2)

        # residuals of what was really given out, h readings ago for this one
        given = torch.diagonal(state["given"], dim1=1, dim2=2)
        residuals = (value - given) / scale
        cut = residuals.clamp(-LIMIT, LIMIT)
        pace = torch.maximum(1.0 / count.clamp(min=1.0), torch.full_like(count, 0.01))
        size = torch.where(known > 0, state["size"] + pace * (cut.abs() - state["size"]), state["size"])
        offsets = size[:, :, None] * (1.25 * self.gauss + state["tracked"])
        below = (cut[:, :, None] < offsets).to(x.dtype)
        tracked = state["tracked"] + config.pace * known[:, :, None] * (self.levels - below)
        tracked = tracked.clamp(-LIMIT, LIMIT)
        spread = mean[:, :, None] + scale[:, :, None] * size[:, :, None] * (1.25 * self.gauss + tracked)
        spread = spread.sort(dim=2).values  # quantiles that cross are rearranged (Chernozhukov et al. 2010)
        new |= {
            "ring": readings,
            "there": present,
            "clock": clock,
            "count": count,
            "level": level,
            "variance": variance,
            "given": torch.cat([mean[:, None], state["given"][:, :-1]], 1),
            "losses": losses,
            "size": size,
            "tracked": tracked,
        }
        return mean, spread, new


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
