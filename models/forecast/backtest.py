"""Scores a forecaster of several sensors on unseen rows, next to naive baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models.forecast.multivariate import Multivariate
from models.forecast.table import Table

__all__ = ["BacktestForecasts", "TargetScore", "backtest", "overall", "run", "season"]

Floats = NDArray[np.float64]
#: Rows of one call; bounds the memory that it takes.
PIECE = 512


class BacktestForecasts(NamedTuple):
    """[N, K, H] each, after each of N rows, for K targets and H steps: the mean, the median, and the ends of the 90 %
    interval."""

    mean: NDArray[np.float32]
    middle: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]


@dataclass(frozen=True)
class TargetScore:
    """The scores of one target over all steps ahead; ``mse`` (of the mean) and ``mae`` (of the median) in its units.
    ``persistence``: (MSE, MAE) of the last reading as a forecast; ``seasonal``: of the reading a day ago, ``None`` if a
    day is not a whole number of rows or not over yet. ``mase``: ``mae`` over that of the better of the two.
    ``coverage``: of the 90 % interval. ``deviation``: of the target in the training rows."""

    target: str
    deviation: float
    forecasts: int
    mse: float
    mae: float
    persistence: tuple[float, float]
    seasonal: tuple[float, float] | None
    mase: float
    coverage: float


@torch.no_grad()
def run(model: Multivariate, rows: NDArray[np.float32], piece: int = PIECE) -> BacktestForecasts:
    """The forecasts of one stream over ``rows`` [N, 2 C + 2], from its start, ``piece`` rows a call."""
    levels = model.config.quantiles
    chosen = [levels.index(level) for level in (0.5, levels[0], levels[-1])]
    state, parts = model.initial_state(1), []
    for part in torch.from_numpy(rows)[None].split(piece, dim=1):
        said, state = model(part, state)
        curves = said["quantiles"][0, ..., chosen].numpy()
        parts.append([said["mean"][0].numpy(), *np.moveaxis(curves, -1, 0)])
    return BacktestForecasts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def season(step: float) -> int:
    """The steps of a day, for ``step`` seconds; 0 if a day is not a whole number of steps."""
    found = round(86400 / step)
    return found if found > 1 and abs(found * step - 86400) < 0.01 * step else 0


def backtest(
    model: Multivariate, table: Table, found: BacktestForecasts, begin: int, origins: range
) -> list[TargetScore]:
    """The scores of each target. ``found``: forecasts from the table's rows, the first from row ``begin``. ``table``
    holds the model's variables in its order. ``origins``: rows whose forecasts are scored. Forecasts from a missing
    reading are not scored, because persistence has no value there."""
    config = model.config
    ahead = np.arange(1, config.horizon + 1)
    rows = np.array(origins)
    days, scores = season(table.step), []
    whole = table.stretches[rows[:, None] + ahead] == table.stretches[rows][:, None]
    for number, target in enumerate(config.targets):
        values = table.values[:, config.variables.index(target)]
        truth = np.where(whole, values[rows[:, None] + ahead], np.nan)
        last = values[rows][:, None]
        mean, middle, low, high = (part[rows - begin, number].astype(np.float64) for part in found)
        known = ~np.isnan(truth + last)
        truth[~known] = np.nan
        mse, mae = _errors(truth, mean)[0], _errors(truth, middle)[1]
        naive = [_errors(truth, last)]
        ratios = [mae / naive[0][1]] if naive[0][1] else []
        seasonal = None
        if days and rows[0] + 1 >= days * -(-config.horizon // days):
            then = values[rows[:, None] + ahead - days * -(-ahead // days)]
            both = np.where(np.isnan(then), np.nan, truth)
            if not np.isnan(both).all():
                seasonal = _errors(both, then)
                ratios += [_errors(both, middle)[1] / seasonal[1]] if seasonal[1] else []
        inside = ((low <= truth) & (truth <= high))[known]
        deviation = float(model.spread[config.variables.index(target)])
        covered = float(inside.mean()) if len(inside) else float("nan")
        mase = max(ratios, default=float("nan"))
        scores.append(TargetScore(target, deviation, int(known.sum()), mse, mae, naive[0], seasonal, mase, covered))
    return scores


def overall(scores: Sequence[TargetScore]) -> TargetScore:
    """The mean over targets, with errors in units of each target's deviation."""
    units = np.array([(score.deviation**2, score.deviation) for score in scores])

    def mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
        squares, sizes = (np.array(pairs) / units).mean(0).tolist()
        return squares, sizes

    mse, mae = mean([(score.mse, score.mae) for score in scores])
    seasonal = [score.seasonal for score in scores if score.seasonal is not None]
    return TargetScore(
        "all, in deviations", 1.0, sum(score.forecasts for score in scores), mse, mae,
        mean([score.persistence for score in scores]), mean(seasonal) if len(seasonal) == len(scores) else None,
        float(np.mean([score.mase for score in scores])), float(np.mean([score.coverage for score in scores])),
    )  # fmt: skip


def _errors(truth: Floats, said: Floats) -> tuple[float, float]:
    """Mean square and mean absolute error where both are known; NaN if they never are."""
    errors = (truth - said)[~np.isnan(truth - said)]
    return (float(np.mean(errors**2)), float(np.mean(np.abs(errors)))) if len(errors) else (float("nan"),) * 2
