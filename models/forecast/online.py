"""A forecaster that learns while it runs, inside the graph: all that it learns is state.

For each reading of a sensor it outputs a mean and quantiles for every step of the horizon, the probability of the
reading, and the sensor's drift. Its members are a few linear experts, each fitted by recursive least squares with
forgetting (Haykin, Adaptive Filter Theory, chapter on RLS): from differences of the last readings, the level, and
harmonics of the time of day and week, to each step ahead directly, relative to the last reading. Labels come ``h``
readings late for step ``h`` and are used as soon as they come. Persistence is an expert, too. If there is a trained
:class:`models.forecast.network.Network`, its forecast is one more expert, and least squares on its features another.
"As a day ago" and "as a week ago" are experts where that is not too many readings ago. The forecast is a mixture whose
weights follow every expert's discounted loss, separately for each step of the horizon (exponential weights,
Cesa-Bianchi and Lugosi 2006, section 2.1, on relative loss); experts are clipped to the sensor's range so far.
Quantiles: :mod:`models.forecast.bands`.

It must run for years in float32. Therefore features are *successive* differences in units of the sensor's scale
(differences to the last reading are so similar that their covariance loses its positive eigenvalues in days); a gain
never overshoots, it takes the error to zero at most (the scale may have moved since the covariance saw those features);
the covariance's mean eigenvalue is bounded (a stuck sensor excites nothing, and forgetting would inflate it), and a
little is added to all of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from models.forecast.bands import Calibrated, Residuals
from models.forecast.calibration import Adaptation
from models.forecast.front import LARGEST, PACKED, WINDOW, FrontAverages, follow, pace_of
from models.forecast.grid import Grid
from models.forecast.grouped import BLOCKS, GroupedRls, groups
from models.forecast.network import Network, NetworkConfig, inputs
from models.forecast.normalise import DAY_HARMONICS, LIMIT, WARM, WEEK_HARMONICS, waves
from models.forecast.novelty import Novelty
from models.layers import State, Streaming, inner, outer

#: Channels of the input: reading (anything where missing), mask (0 where missing, else 1), time of day and of week in
#: [0, 1).
CHANNELS = 4
#: The longest run of readings in doubt or missing that is filled when the next one comes.
SHORT = 5
#: Channels of the day's harmonics, and of all.
DAY, WAVES = 2 * DAY_HARMONICS, 2 * (DAY_HARMONICS + WEEK_HARMONICS)
#: Channels of the clock's harmonics, by an expert's ``clock``.
CLOCKS = (0, 2 * DAY_HARMONICS, 2 * (DAY_HARMONICS + WEEK_HARMONICS))


@dataclass(frozen=True)
class Expert:
    """``lags``: number of differences. ``forget``: factor of the past's weight with each reading. ``clock``: harmonics
    of the day (1), of the day and the week (2), none (0)."""

    lags: int
    forget: float
    clock: int = 1


@dataclass(frozen=True)
class OnlineConfig:
    horizon: int = 24
    experts: tuple[Expert, ...] = (Expert(24, 0.999, 1), Expert(3, 0.9995, 1))
    seasons: tuple[float, ...] = (1.0, 7.0)  # lengths in days
    season: int = 288  # readings of the longest season
    network: NetworkConfig | None = None
    readout: float = 0.9999  # forgetting of the least squares on the network's features
    quantiles: tuple[float, ...] = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    sharpness: float = 20.0  # how much worse an expert must have been to lose its weight
    handicap: float = 0.05  # other experts must beat persistence by this share of their loss
    half_life: float = 1500.0  # readings after which a loss counts half
    memory: float = 2000.0  # readings over which level, scale and range are averaged
    pace: Adaptation = field(default_factory=Adaptation)

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
                "pace": Adaptation(**values["pace"]),
            }
        )


class Online(Streaming):
    """``forward(x [B, T, 4] float64, state) -> (outputs, state)``; channels: see ``CHANNELS``. Outputs: ``mean``
    [B, T, H] and ``quantiles`` [B, T, H, Q], float64; ``anomaly`` [B, T]: the probability of a reading this far from
    its forecast, or from the range so far (1 without a reading); ``drift`` [B, T]: residuals of the last day over those
    of a season (1: no drift).

    Everything is causal: the output for a reading depends on it and on earlier ones. Raises ``ValueError`` if the
    network's horizon is too short.
    """

    receptive_field = None

    def __init__(self, config: OnlineConfig) -> None:
        super().__init__()
        self.config = config
        horizon, self.lags = config.horizon, max(expert.lags for expert in config.experts)
        self.ring = max(self.lags + horizon, config.season if config.seasons else 0) + 1  # readings
        self.experts = nn.ModuleList(
            GroupedRls(expert.lags + 2 + CLOCKS[expert.clock], horizon, expert.forget) for expert in config.experts
        )
        self.learnt = len(config.experts)  # members that were fitted or trained
        if config.network:
            if config.network.horizon < horizon:
                raise ValueError(f"the network forecasts {config.network.horizon} steps ahead, not {horizon}")
            self.network = Network(config.network)
            self.readout = GroupedRls(config.network.hidden + 2, horizon, config.readout)
            self.learnt += 2
        self.naive = 1 + len(config.seasons)
        self.members = self.naive + self.learnt
        self.grid = Grid(horizon, self.learnt + 2)  # the members' forecasts, the mean, its spread
        self.calibration = Calibrated(self.grid.steps, config.quantiles, config.pace)
        self.novelty = Novelty()
        self._places()

    def _places(self) -> None:
        """Registers the indices into the ring, whose last element is the newest reading."""
        horizon, config = self.config.horizon, self.config
        newest, steps, edges = self.ring - 1, torch.arange(1, horizon + 1), torch.tensor([0, *groups(horizon)])
        group = edges[torch.searchsorted(edges, steps)]  # age, in readings, of the features of each step's label
        ago = edges[:, None] + torch.arange(self.lags)
        places = {
            "edges": edges,
            "newer": (self.lags + horizon - 1 - ago).flatten(),  # of the differences that are features
            "bases": newest - edges,
            "target": newest - group + steps,
            "origin": newest - group,
            "target_ago": group - steps,
            "origin_ago": group,
            "said_at": newest - self.grid.at - 1,
            "grid_ago": self.grid.at + 1,
        }
        for name, tensor in places.items():
            self.register_buffer(f"_{name}", tensor, persistent=False)
        odds = torch.tensor([1.0] + [1 + config.handicap] * (self.members - 1))
        self.register_buffer("odds", odds[:, None], persistent=False)
        self.register_buffer("ahead", steps.float(), persistent=False)
        place = torch.arange(len(self.grid.steps))
        self.register_buffer("_near", 0.1 ** (place - place[:, None]).abs().float(), persistent=False)
        self.register_buffer("first", (torch.arange(self.members) == 0).float()[:, None], persistent=False)

    def initial_state(self, batch: int) -> State:
        horizon = self.config.horizon
        state = {
            "front": torch.zeros(batch, PACKED + 1, dtype=torch.float64),  # averages, and the forecast of one step
            "ring": torch.zeros(batch, self.ring),  # readings less the origin, the newest last
            # newest first: waves of the clock, time of the week, 1 where a reading was not in doubt, restlessness
            "past": torch.zeros(batch, WAVES + 3, horizon + 1),
            "turn": torch.zeros(batch, 1),
            "losses": torch.zeros(batch, self.members, len(self.grid.steps)),
            "said": torch.zeros(batch, self.grid.length),
        }
        for i, expert in enumerate(self.experts):
            state |= outer(expert.initial_state(batch), f"expert{i}")
        if self.config.network:
            state |= outer(self.network.initial_state(batch), "network")
            state |= outer(self.readout.initial_state(batch), "readout")
            state["features"] = torch.zeros(batch, horizon + 1, self.config.network.hidden)  # newest first
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
        """The outputs for one reading [B, 4], without the axis T, and the state."""
        config, new = self.config, State()
        packed, expected = state["front"].split([PACKED, 1], 1)
        before = FrontAverages.of(packed)
        given, mask, clock = x.split([1, 1, 2], 1)
        there = ((mask > 0.5) & (given.abs() < LARGEST)).double()
        reading = torch.where(there > 0, given, before.last)
        found = follow(reading, there, before, config.memory, expected)
        after = found.after

        # from here on relative to the origin, in float32
        early = after.readings <= WINDOW
        held = after.origin - found.moved + state["ring"][:, -1:]
        stands = torch.where(early, found.median, expected)  # for a reading in doubt
        taken = torch.where(found.sure > 0, reading, torch.where(there > 0, stands, held))
        low, high = (after.low - after.origin).float(), (after.high - after.origin).float()
        value, raw = (taken - after.origin).float(), (reading - after.origin).float()
        ring = torch.cat([state["ring"][:, 1:] - found.moved.float(), value], 1)
        limit = torch.where(early, 0.0, 1e37).float()
        ring = torch.minimum(torch.maximum(ring, low - limit), high + limit)
        value = ring[:, -1:]
        # at first, without forecasts, readings in doubt are interpolated
        ago = torch.arange(SHORT, 0, -1)
        gap = (ago <= before.run) & (found.sure > 0) & (after.readings <= WARM) & (before.readings > 0)
        line = value + ((before.last - after.origin).float() - value) * (ago / (before.run.float() + 1))
        ring = torch.cat([ring[:, : -1 - SHORT], torch.where(gap, line, ring[:, -1 - SHORT : -1]), value], 1)
        scale, pace = found.scale.float(), pace_of(after.squares, found.scale).float()
        count, heard_of = after.count.float(), after.readings.float()
        level = (after.level - after.origin).float()
        sure, heard = found.sure.float(), there.float()
        warm = (heard_of > WARM).float()

        clock = clock.float()
        now = torch.cat([waves(clock), clock[:, 1:], sure, state["past"][:, -1:, 0]], 1)[:, :, None]
        # forecasts issued before the sensor moved for good are not learnt from
        kept = (found.jump == 0).float()[:, :, None]
        there_then = state["past"][:, WAVES + 1 : WAVES + 2, :-1] * kept
        past = torch.cat([state["past"][:, : WAVES + 1, :-1], there_then, state["past"][:, -1:, :-1]], 1)
        past = torch.cat([now, past], 2)
        beat = past[:, :WAVES].index_select(2, self._edges).transpose(1, 2)  # [B, 1 + G, 12], day first
        present = past[:, WAVES + 1]
        per = 1.0 / scale
        steps = self._differences(ring, per)
        above = ((ring.index_select(1, self._bases) - level) * per).clamp(-LIMIT, LIMIT)[:, :, None]
        rows = torch.cat([beat[:, :, DAY:], beat[:, :, :DAY], above, torch.ones_like(above), steps], 2)
        labels = ((ring.index_select(1, self._target) - ring.index_select(1, self._origin)) * per).clamp(-LIMIT, LIMIT)[
            :, None
        ]
        known = (present.index_select(1, self._target_ago) * present.index_select(1, self._origin_ago) * warm)[:, None]
        fresh = (sure * warm)[:, :, None]
        answers = []
        for i, (expert, plan) in enumerate(zip(self.experts, config.experts, strict=True)):
            some = rows[:, :, CLOCKS[2] - CLOCKS[plan.clock] : CLOCKS[2] + 2 + plan.lags]
            answer, part = expert(some, labels, known, fresh, state["turn"], inner(state, f"expert{i}"))
            answers.append(answer * scale[:, :, None])
            new |= outer(part, f"expert{i}")
        if config.network:
            seen = inputs(found, beat[:, 0, : config.network.clock], config.memory)
            (features, ahead), part = self.network(seen[:, None], inner(state, "network"))
            new |= outer(part, "network")
            new["features"] = torch.cat([features, state["features"][:, :-1]], 1)
            rows = torch.cat([new["features"].index_select(1, self._edges), above, torch.ones_like(above)], 2)
            answer, part = self.readout(rows, labels, known, fresh, state["turn"], inner(state, "readout"))
            new |= outer(part, "readout")
            answers += [answer * scale[:, :, None], ahead[:, :, : config.horizon] * pace[:, :, None]]

        # the members' forecasts [B, M, H], relative to the last reading and within the sensor's range so far;
        # persistence, the first member, would be 0 and is left out
        ahead, ago, same = self.seasonal(ring, past, heard_of)
        said = torch.cat([*([ahead - value[:, None]] if config.seasons else []), *answers], 1)
        said = torch.minimum(torch.maximum(said, (low - value)[:, None]), (high - value)[:, None])
        # and the forecasts of this reading as they were issued, not as the members would make them by now
        due = self.grid.due(state["said"])
        then = ring.index_select(1, self._said_at)
        off = raw - then  # of persistence
        own = due[:, : self.learnt]
        naive = [torch.zeros_like(off)[:, None], *([ago - then[:, None]] if config.seasons else [])]
        errors = ((off[:, None] - torch.cat([*naive, own], 1)) * per[:, :, None]).clamp(-LIMIT, LIMIT)
        kept = 0.5 ** (1.0 / config.half_life)
        said_then = present.index_select(1, self._grid_ago) * warm
        losses = state["losses"] + (1 - kept) * (said_then * sure)[:, None] * (errors.square() - state["losses"])
        weights = self.hedge(losses)
        if config.seasons:
            weights = self.shared(weights, same)
        mean = ((weights[:, 1:] @ self.grid.between.T) * said).sum(1)

        # after a reading in doubt, a similar one has a small surprise, but a large move, as has the return
        doubted = before.doubted > 0
        again, alone = (reading - before.recent[:, :1]).abs().float(), (off[:, :1] - due[:, -2, :1]).abs()
        surprise = torch.where(doubted, torch.minimum(alone, again), alone)
        move = torch.where(doubted, torch.maximum(alone, again), alone)
        asked = heard * warm * torch.where(doubted, 1.0, present[:, 1:2]).float()
        residuals = Residuals(
            off=off - due[:, -2],
            spread=due[:, -1],
            restless=state["past"][:, -1].index_select(1, self.grid.at),
            known=said_then * heard,
            sure=sure,
            surprise=surprise,
            move=move,
            asked=asked,
        )
        bands, part = self.calibration(residuals, count, scale, pace, inner(state, "calibration"))
        new |= outer(part, "calibration")
        offsets = self.grid.between @ bands.offsets  # [B, H, Q]
        # the scale if this reading counted, in doubt or not
        apart = (reading - after.level) / after.count.clamp(min=1.0).sqrt()
        spread = torch.maximum(found.scale, apart.abs())
        anomaly, part = self.novelty(
            reading, there, x[:, 2:3], spread, bands.probability.double(), inner(state, "novelty")
        )
        new |= outer(part, "novelty")
        channels = torch.cat([said[:, len(config.seasons) :], mean[:, None]], 1).index_select(2, self.grid.at)
        base = after.origin + value.double()
        new |= {
            "front": torch.cat([after.packed(), base + mean[:, :1].double()], 1),
            "ring": ring,
            "past": torch.cat([past[:, :-1], torch.cat([bands.restless[:, :, None], past[:, -1:, 1:]], 2)], 1),
            "turn": torch.where(state["turn"] < 2 * BLOCKS - 1, state["turn"] + 1.0, float(BLOCKS)),
            "losses": losses,
            "said": self.grid.say(state["said"], torch.cat([channels, bands.spread[:, None]], 1)),
        }
        # two similar readings in doubt may be the sensor's new level: it is expected to last as long as it has lasted
        run = after.run
        alike = (reading - before.recent[:, :1]).abs() <= 0.5 * (reading - taken).abs()
        stays = ((there > 0) & (found.sure <= 0) & (run > 1) & (before.doubted > 0) & alike).double()
        lasts = run.square() / (run.square() + self.ahead.square())
        centre = base + mean.double() + stays * (reading - taken) * lasts
        outputs = {
            "mean": centre,
            "quantiles": centre[:, :, None] + offsets.double(),
            "anomaly": anomaly[:, 0].float(),
            "drift": bands.drift[:, 0],
        }
        return outputs, new

    def _differences(self, ring: Tensor, per: Tensor) -> Tensor:
        """Differences of readings [B, 1 + G, lags], newest first: those up to now, and up to the reading that each
        group's labels belong to."""
        last = ring[:, -(self.lags + self.config.horizon + 1) :]
        steps = ((last[:, 1:] - last[:, :-1]) * per).clamp(-LIMIT, LIMIT)
        return steps.index_select(1, self._newer).reshape(-1, len(self._edges), self.lags)

    def seasonal(self, ring: Tensor, past: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The seasonal forecasts: for the steps ahead [B, seasons, H]; for now, as issued at the steps of the grid
        [B, seasons, S]; and [B, seasons, S], 1 where the steps ahead are whole seasons. A forecast is the last known
        reading of the same phase, or the last reading if the season is not a whole number of readings, is too long, or
        is not over yet. For whole seasons it equals persistence."""
        turn = past[:, WAVES, :1] - past[:, WAVES, 1:2]
        turn = (turn - turn.floor()).clamp(min=1e-6)  # of a week, from one reading to the next
        exact = torch.tensor(self.config.seasons) / 7 / turn  # [B, seasons]
        period = exact.round()
        fits = ((exact - period).abs() < 0.01 * period) & (period > 1)
        period = period.clamp(min=2.0)[:, :, None]
        back = period * (self.ahead / period).ceil()  # [B, seasons, H]
        known = fits[:, :, None] & (back < self.ring) & (count[:, :, None] > back)
        then = torch.where(known, back - self.ahead, 0.0)
        now = torch.where(known, back, self.ahead).index_select(2, self.grid.at)
        at = (self.ring - 1 - torch.cat([then, now], 2)).long().clamp(0, self.ring - 1)
        got = torch.gather(ring, 1, at.flatten(1)).reshape(-1, *at.shape[1:])
        ahead, ago = got.split([self.config.horizon, len(self.grid.steps)], 2)
        same = (known & (back == self.ahead)).to(ring.dtype).index_select(2, self.grid.at)
        return ahead, ago, same

    def shared(self, weights: Tensor, same: Tensor) -> Tensor:
        """``weights`` [B, M, S], shared again where persistence and "as a season ago" are the ``same`` [B, seasons, S].
        Whole seasons ahead both have the same loss, but their weights also apply to the steps between, where they
        differ. So they share their sum as they do at the nearest other steps of the grid."""
        naive, others = weights.split([self.naive, self.learnt], 1)
        some = same.amax(1, keepdim=True)
        group = torch.cat([some, same], 1)
        near = ((naive * (1.0 - some)) @ self._near).clamp(min=1e-12) * group
        shares = near / near.sum(1, keepdim=True).clamp(min=1e-12)
        together = (naive * group).sum(1, keepdim=True)
        return torch.cat([naive * (1.0 - group) + together * shares, others], 1)

    def hedge(self, losses: Tensor) -> Tensor:
        """Weights [B, M, S] from discounted ``losses`` [B, M, S]; persistence alone where there are none yet."""
        handicapped = losses * self.odds
        best = handicapped.amin(1, keepdim=True)
        weights = (-self.config.sharpness * (handicapped - best) / best.clamp(min=1e-9)).exp()
        weights = weights / weights.sum(1, keepdim=True)
        seen = (losses.amax(1, keepdim=True) > 0).to(losses.dtype)
        return seen * (weights - self.first) + self.first


def info(name: str, config: OnlineConfig) -> dict[str, Any]:
    """The facts for a checkpoint (see :func:`models.load`); the module has no trained weights."""
    return {
        "name": name,
        "task": "forecast",
        "input": {"name": "readings", "dtype": "float64", "chunk_shape": [1, CHANNELS], "step_seconds": 0.0},
        "options": {"quantiles": list(config.quantiles), "horizon": config.horizon},
        "data": "none: it learns from each stream alone, while it runs",
        "licence": "Apache-2.0",
        "description": "Forecasts any sensor from its first day on: linear experts fitted online, hedged, with "
        "quantiles that are calibrated while it runs.",
    }
