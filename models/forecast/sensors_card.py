"""The card of a forecaster of a user's own sensors: data, scores beside naive baselines, the leak check."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.forecast.backtest import TargetScore, overall
from models.forecast.leaks import LeakFinding
from models.forecast.plan import Plan
from streamer.sources.times import show_time

SCORES = ("target", "MSE", "MAE", "persistence: MSE", "MAE", "seasonal: MSE", "MAE", "MASE", "in the 90 % interval")
FAMILIES = {"gru": "GRU", "lstm": "LSTM", "rnn": "plain RNN", "convolution": "gated causal convolutions"}


@dataclass(frozen=True)
class SensorsCard:
    plan: Plan
    info: dict[str, Any]
    parameters: int
    scores: Sequence[TargetScore]
    begin: int
    origins: range
    findings: Sequence[LeakFinding]

    def markdown(self, picture: str) -> str:
        choice, sound = self.plan.choice, all(finding.ok for finding in self.findings)
        blocks = [
            f"# `{self.info['name']}`",
            f"Forecasts {_listed(choice.targets)}, {self.plan.horizon} steps of {self.plan.table.step:g} s ahead, from "
            f"the {len(choice.variables)} columns of a table.",
            *([] if sound else ["**The leak check fails: do not trust the scores.**"]),
            _table(("", ""), self._facts()),
            "## Rows",
            _table(("part", "rows", "first", "last"), self._parts()),
            self._found_in_times(),
            "## Columns",
            _table(("column", "target", "mean", "deviation", "missing"), self._columns()),
            *[f"- `{name}` was left out: it {why}." for name, why in choice.left_out.items()],
            *[f"- {warning}" for warning in choice.warnings],
            "## Scores on the test rows",
            self._how(),
            _table(SCORES, self._scores()),
            "## Leak check",
            "The readings after a cut are replaced, and everything is computed again.",
            _table(("check", "", ""), [(f.check, "holds" if f.ok else "**FAILS**", f.detail) for f in self.findings]),
            "## Training",
            f"![training loss, and skill on the validation rows]({picture})",
        ]
        return "\n\n".join(blocks) + "\n"

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "data", self.info["data"]
        yield "network", f"{FAMILIES[self.plan.wanted.family]}, {self.parameters / 1e3:.0f} k parameters"
        yield "hedged with", "least squares on its features while it runs, persistence"
        yield "input", "one row: values, masks, time of day and of week (UTC)"
        yield (
            "trained for",
            f"{self.info['minutes']:.1f} minutes, {self.info['steps']} steps, until the best checkpoint",
        )
        yield (
            "skill on the validation rows",
            f"{self.info['scores']['dev']['skill']:.3f} (1 - loss over persistence's); it picked the checkpoint",
        )

    def _parts(self) -> Iterator[tuple[str, ...]]:
        times = self.plan.table.times
        for name, part in self.plan.parts.items():
            first, last = show_time(times[part.first]), show_time(times[part.end - 1])
            yield name, f"{part.first + 1} to {part.end}", first, last

    def _found_in_times(self) -> str:
        table = self.plan.table
        counts = (
            (self.plan.raw.bad, "lines could not be read"),
            (table.masked, "rows were missing and are masked"),
            (table.duplicates, "rows with the time of an earlier row were left out"),
            (table.unsorted, "rows were not in order and were sorted; a daemon can't sort, it leaves them out"),
            (int(table.stretches[-1]), "gaps were too long to be filled"),
        )
        found = [f"{count} {what}." for count, what in counts if count]
        if table.odd > 0.1:
            found.append(
                f"{table.odd:.0%} of the readings are not a whole number of steps apart: is the step constant?"
            )
        return " ".join(
            [f"Rows come every {table.step:g} s; {self.plan.horizon} are left out between two parts.", *found]
        )

    def _columns(self) -> Iterator[tuple[str, ...]]:
        plan = self.plan
        training = plan.table.values[: plan.parts["training"].end]
        for number, name in enumerate(plan.choice.variables):
            mean, deviation = plan.scaling.centre[number], plan.scaling.spread[number]
            lost = np.isnan(training[:, plan.columns[number]]).mean()
            yield name, "yes" if name in plan.choice.targets else "", f"{mean:.4g}", f"{deviation:.4g}", f"{lost:.1%}"

    def _how(self) -> str:
        times = self.plan.table.times
        begin, end = (show_time(times[row]) for row in (self.origins[0], self.origins[-1]))
        return (
            f"{len(self.origins)} forecasts, after each row from {begin} to {end}, over all {self.plan.horizon} steps, "
            f"by a stream that started at row {self.begin + 1}. MSE is of the mean, MAE of the median, beside those of "
            "persistence (the last reading) and of the seasonal naive forecast (as a day ago). MASE: MAE over that of "
            "the better one. The last row is the mean over targets, in units of their deviation."
        )

    def _scores(self) -> Iterator[tuple[str, ...]]:
        for score in (*self.scores, overall(self.scores)):
            naive = (*score.persistence, *(score.seasonal or ()))
            errors = [f"{value:.4g}" for value in (score.mse, score.mae, *naive)]
            errors += [""] * (6 - len(errors))
            yield score.target, *errors, f"{score.mase:.3f}", f"{score.coverage:.1%}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def curves(log: Path, picture: Path) -> None:
    """Plot training loss and skill on the validation rows from a run's ``log.jsonl`` to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    minutes = [row["minutes"] for row in rows]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for side, name, title in zip(
        axes, ("loss", "skill"), ("training loss", "skill on the validation rows"), strict=True
    ):
        side.plot(minutes, [row[name] for row in rows], color="#4477aa")
        side.set(title=title, xlabel="minutes")
    best = max(rows, key=lambda row: row["skill"])
    axes[1].plot(best["minutes"], best["skill"], "o", color="#4477aa")
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
