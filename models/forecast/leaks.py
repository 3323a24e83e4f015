"""Detects leaks: whether scaling, examples, choices or forecasts depend on later readings.

The readings after a cut are replaced, and everything is computed again: scaling, examples, forecasts. Results for the
time before the cut must be bit-identical. A forecaster runs across the cut in one call, which reveals a look-ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from models.forecast.backtest import BacktestForecasts, run
from models.forecast.multivariate import Multivariate
from models.forecast.plan import Plan
from models.forecast.table import RawTable

__all__ = ["LeakFinding", "changed", "find", "overlaps"]

#: Number of cuts within the test rows, and of rows that are run before and after each.
CUTS, BEFORE, BEHIND = 2, 256, 64
#: Number of batches of examples that are compared.
BATCHES = 3


@dataclass(frozen=True)
class LeakFinding:
    check: str
    ok: bool
    detail: str


def changed(raw: RawTable, after: float, seed: int = 0) -> RawTable:
    """A table whose readings later than ``after`` (unix seconds) are replaced: far off, and a third of them missing."""
    rng = np.random.default_rng(seed)
    values, later = raw.values.copy(), raw.times > after
    shape = (int(later.sum()), values.shape[1])
    with np.errstate(invalid="ignore"):
        spread = np.nan_to_num(np.nanstd(values, axis=0)) + 1.0
    noise = np.nan_to_num(values[later]) + spread * rng.normal(0, 10, shape)
    values[later] = np.where(rng.random(shape) < 1 / 3, np.nan, noise)
    return replace(raw, values=values)


def find(plan: Plan, again: Callable[[RawTable], Plan], model: Multivariate) -> list[LeakFinding]:
    """The findings of all checks. ``again`` makes a plan of another table, with the settings of ``plan``. ``model``:
    the trained one."""
    return [*_training(plan, again), _validation(plan, again), *_forecasts(plan, again, model), overlaps(plan)]


def _training(plan: Plan, again: Callable[[RawTable], Plan]) -> Iterator[LeakFinding]:
    other = again(changed(plan.raw, _time(plan, plan.parts["training"].end)))
    wrong = "they depend on rows behind the training part"
    same = _comparable(plan, other) and all(map(_equal, plan.scaling, other.scaling))
    yield LeakFinding("columns and scaling are of the training rows alone", same, "" if same else wrong)
    same = _comparable(plan, other)
    if same:
        pairs = zip(*(iter(made.windows(1)) for made in (plan, other)), range(BATCHES), strict=False)
        same = all(all(map(_equal, one, two)) for one, two, _ in pairs)
    yield LeakFinding("examples are of the training rows alone", same, "" if same else wrong)


def _validation(plan: Plan, again: Callable[[RawTable], Plan]) -> LeakFinding:
    other = again(changed(plan.raw, _time(plan, plan.parts["validation"].end)))
    same = _comparable(plan, other) and all(map(_equal, plan.held(), other.held()))
    detail = "" if same else "they depend on rows behind the validation part"
    return LeakFinding("what picks the best checkpoint is before the test rows", same, detail)


def _forecasts(plan: Plan, again: Callable[[RawTable], Plan], model: Multivariate) -> Iterator[LeakFinding]:
    test = plan.parts["test"]
    wrong, blind, cuts = [], [], []
    for number in range(CUTS):
        cut = _gap_near(plan, test.first + (number + 1) * (test.end - test.first) // (CUTS + 1))
        cuts.append(cut)
        part = slice(max(0, cut - BEFORE), cut + BEHIND)
        kept = cut + 1 - part.start
        other = again(changed(plan.raw, _time(plan, cut + 1), seed=number))
        if not _comparable(plan, other):
            wrong.append(cut)
            continue
        mine, theirs = (run(model, made.inputs()[part], piece=BEFORE + BEHIND) for made in (plan, other))
        wrong += [cut] * any(not _equal(a[:kept], b[:kept]) for a, b in zip(mine, theirs, strict=True))
        blind += [cut] * all(_equal(a[kept:], b[kept:]) for a, b in zip(mine, theirs, strict=True))
    detail = f"cuts behind rows {', '.join(str(cut + 1) for cut in cuts)}; {', '.join(BacktestForecasts._fields)}"
    if wrong:
        detail = f"forecasts up to row {wrong[0] + 1} know what comes behind it"
    yield LeakFinding("forecasts before a cut are the same bits whatever comes behind it", not wrong, detail)
    detail = f"nothing changes behind row {blind[0] + 1}: the check above proves nothing" if blind else ""
    yield LeakFinding("and behind it they are not", not blind, detail)


def _comparable(plan: Plan, other: Plan) -> bool:
    return (plan.choice.variables, plan.choice.targets) == (other.choice.variables, other.choice.targets)


def _gap_near(plan: Plan, row: int) -> int:
    """The nearest row with a missing reading, which reveals a gap filled from later readings; else ``row``."""
    near = np.arange(max(0, row - BEFORE), min(row + BEFORE, len(plan.table.times) - BEHIND))
    count = len(plan.columns)
    gaps = near[plan.inputs()[near, count : 2 * count].min(1) == 0]
    return int(gaps[np.argmin(np.abs(gaps - row))]) if len(gaps) else row


def overlaps(plan: Plan) -> LeakFinding:
    """Whether a label of one part is a row of the next; ``horizon`` rows must lie between parts."""
    parts, horizon = [*plan.parts.values()], plan.horizon
    last = [part.origins(horizon)[-1] + horizon for part in parts]
    labelled = _last_label(plan)
    wrong = [str(part) for part, row in zip(parts, last, strict=True) if row >= part.end]
    wrong += [str(b) for a, b in pairwise(parts) if b.first - a.end < horizon]
    wrong += [f"labels of row {labelled}"] if labelled >= parts[0].end else []
    gaps = " and ".join(str(b.first - a.end) for a, b in pairwise(parts))
    detail = f"{gaps} rows between the parts" if not wrong else "; ".join(wrong)
    return LeakFinding("no window of a part reaches into the next", not wrong, detail)


def _last_label(plan: Plan) -> int:
    """The last row that is a training label, found in examples whose windows begin as late as possible."""
    windows = plan.windows(1)
    firsts = torch.tensor([windows.behind - 1])
    known = windows.batch(firsts).known.unflatten(2, (-1, plan.horizon)).any(2)[0].numpy()  # [T, H]
    ahead = int(firsts) + np.arange(len(known))[:, None] + np.arange(1, plan.horizon + 1)
    return int(ahead[known].max(initial=-1))


def _time(plan: Plan, row: int) -> float:
    """A time just before ``row``, in unix seconds."""
    times = plan.table.times
    return float((times[row - 1] + times[min(row, len(times) - 1)]) / 2)


def _equal(one: Any, two: Any) -> bool:
    """Whether two arrays are bit-identical."""
    one, two = np.asarray(one), np.asarray(two)
    return one.shape == two.shape and one.tobytes() == two.tobytes()
