"""The recipe for a user's own table of sensors: from one CSV to a forecaster of its columns, with its card.

Rows are split in order of time. Columns and scaling are chosen on the training part, the best checkpoint on the
validation part; the test part is scored once, at the end, and chooses nothing. :mod:`models.forecast.leaks` checks that
no part depends on a later one.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from models.forecast import leaks
from models.forecast.backtest import backtest, overall, run
from models.forecast.forecasting import ForecastBatch, ForecastTraining
from models.forecast.network import Network
from models.forecast.plan import Plan, Wanted
from models.forecast.sensors_card import SensorsCard, curves
from models.forecast.table import read
from models.forecast.windows import WindowOptions
from models.shipped.forecast import skill
from models.speech.acoustic import parameters
from models.training import checkpoint
from models.training.budget import fit

#: The most rows that are run to score the test rows: the last ones of validation and test.
RUN = 20_000
#: If the run does not begin with the validation part: the first rows of the run, which are not scored. The model adapts
#: on them.
WARM = 2000


@torch.no_grad()
def prior(network: Network, batch: ForecastBatch, pace: Tensor, skip: int, members: int) -> Tensor:
    """[K, H, M]: the members' mean squared errors on the validation rows, in deviations; 1 where a target has no
    readings. The last member is the network; the others start with the errors of persistence."""
    (_, change), _ = network(batch.x, network.initial_state(len(batch.x)))
    known = batch.known[:, skip:].float()
    count = known.sum((0, 1))
    still, moved = (
        ((said[:, skip:] - batch.labels[:, skip:]).square() * known).sum((0, 1)) / count.clamp(min=1.0)
        for said in (torch.zeros_like(change), change)
    )
    errors = torch.stack([still] * (members - 1) + [moved], 1).where(count[:, None] > 0, torch.ones(1))
    return errors.unflatten(0, (len(pace), -1)) * pace.square()[:, None, None]


def train(
    data: Path,
    folder: Path,
    wanted: Wanted,
    options: WindowOptions,
    *,
    time: str | None = None,
    seed: int = 1,
    resume: bool = False,
) -> bool:
    """Train, score, and write ``best.pt``, ``card.md`` and ``losses.png`` to ``folder``. Returns false if the leak
    check fails; the card has its findings. Raises ``ValueError`` if the table is unusable, ``FileNotFoundError`` if
    there is nothing to resume."""
    lightning.seed_everything(seed, verbose=False)
    torch.set_num_threads(options.threads)
    plan = Plan(read(data, time, lambda line: print(line, file=sys.stderr)), wanted, options)
    for name, why in plan.choice.left_out.items():
        print(f"{name} is left out: it {why}", file=sys.stderr)
    for warning in plan.choice.warnings:
        print(warning, file=sys.stderr)
    if resume and (folder / "last.pt").exists() and checkpoint.load(folder / "last.pt")[0].config != plan.config():
        raise ValueError(f"{folder}: its checkpoint has other columns, horizon or family: leave out --resume")
    examples, later = plan.examples, plan.held()
    pace = plan.material.pace

    def evaluate(network: Network) -> dict[str, float]:
        found = skill(network, later, examples.skip)
        return {"error": 1 - found, "skill": found}

    def save(path: Path, network: Network, about: dict[str, Any]) -> None:
        model = plan.model()
        model.network.load_state_dict(network.state_dict())
        model.prior.copy_(prior(network, later, pace, examples.skip, model.members))
        checkpoint.save(path, model, describe(plan) | about)

    network = Network(plan.config().network)
    training = ForecastTraining(network, examples, evaluate, save, folder)
    print(
        f"{parameters(network) / 1e3:.0f} k parameters, {len(plan.choice.variables)} columns, "
        f"{len(plan.choice.targets)} targets, {plan.parts['training'].end} rows to learn from"
    )
    fit(training, plan.windows(seed), resume=resume)
    return report(plan, folder)


def report(plan: Plan, folder: Path) -> bool:
    """Score the test rows, check for leaks, and write both to checkpoint and card. Returns false if there is a leak."""
    model, info = checkpoint.load(folder / "best.pt")
    rows, test, later = plan.inputs(), plan.parts["test"], plan.parts["validation"].first
    begin = max(later, len(rows) - RUN)
    table = plan.table._replace(values=plan.table.values[:, plan.columns])
    first = test.first if begin == later else max(test.first, begin + WARM)
    origins = range(first, test.end - plan.horizon)
    scores = backtest(model, table, run(model, rows[begin:]), begin, origins)
    findings = leaks.find(plan, lambda raw: type(plan)(raw, plan.wanted, plan.options), model)
    every = overall(scores)
    info["scores"] = {
        **info["scores"],
        "test": {name: getattr(every, name) for name in ("mse", "mae", "mase", "coverage")}
        | {"persistence_mse": every.persistence[0], "persistence_mae": every.persistence[1]},
    }
    checkpoint.save(folder / "best.pt", model, info)
    curves(folder / "log.jsonl", folder / "losses.png")
    card = SensorsCard(plan, info, parameters(model.network), scores, begin, origins, findings)
    (folder / "card.md").write_text(card.markdown("losses.png"))
    return all(finding.ok for finding in findings)


def describe(plan: Plan) -> dict[str, Any]:
    """The checkpoint's ``info``: see :func:`models.training.checkpoint.load`."""
    config, raw = plan.config(), plan.raw
    chunk = [1, config.channels]
    return {
        "name": re.sub(r"[^a-z0-9._-]+", "-", Path(raw.name.removesuffix(".gz")).stem.lower()).strip("-._")[:64]
        or "sensors",
        "task": "forecast",
        "input": {"name": "readings", "dtype": "float32", "chunk_shape": chunk, "step_seconds": float(plan.table.step)},
        "options": {
            "quantiles": list(config.quantiles),
            "horizon": config.horizon,
            "variables": list(config.variables),
            "targets": list(config.targets),
        },
        "data": f"{raw.name}, rows 1 to {plan.parts['training'].end} of {len(plan.table.times)}",
        "licence": f"that of {raw.name}, which it was trained on",
        "description": f"Forecasts {', '.join(config.targets)} {config.horizon} steps ahead from the columns of "
        f"{raw.name}, and goes on learning while it runs.",
    }
