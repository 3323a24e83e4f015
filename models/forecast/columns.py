"""Chooses the usable columns of a table by its training rows, and warns about suspicious ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.forecast.table import RawTable

__all__ = ["Choice", "choose", "copies", "missing"]

Floats = NDArray[np.float64]
#: Correlation of differences from which one column is reported as a copy of another.
ALIKE = 0.99
#: Share of missing readings from which on a column is reported.
MOSTLY = 0.5
#: The most rows for comparing columns, and the fewest different changes of a column that is compared.
COMPARED, VARIED = 20_000, 8


@dataclass(frozen=True)
class Choice:
    """``variables`` and ``targets``: names, in the order of the file. ``left_out``: the reason, by name. ``warnings``:
    sentences about columns that were kept."""

    variables: tuple[str, ...]
    targets: tuple[str, ...]
    left_out: dict[str, str]
    warnings: tuple[str, ...]


def choose(raw: RawTable, training: Floats, targets: Sequence[str], without: Sequence[str], horizon: int) -> Choice:
    """``training`` [N, C]: the training rows, all columns of ``raw``. ``targets``: columns to forecast, empty for all.
    ``without``: columns to leave out. Raises ``ValueError`` for an unknown or unusable target, or if fewer than two
    columns are left."""
    if strange := [name for name in (*targets, *without) if name not in (*raw.columns, *raw.strange)]:
        raise ValueError(f"{raw.name}: has no column {strange[0]!r}: there are {', '.join(raw.columns)[:300]}")
    left_out = dict.fromkeys(raw.strange, "holds no numbers") | dict.fromkeys(without, "was not wanted")
    for name, values in zip(raw.columns, training.T, strict=True):
        known = values[~np.isnan(values)]
        if name in left_out:
            continue
        if len(known) < 2:
            left_out[name] = "has no readings in the training rows"
        elif np.ptp(known) == 0:
            left_out[name] = f"is {known[0]:g} in all training rows"
    if lost := [f"{name} {left_out[name]}" for name in targets if name in left_out]:
        raise ValueError(f"{raw.name}: can't forecast what can't be learnt: {'; '.join(lost)}")
    variables = tuple(name for name in raw.columns if name not in left_out)
    if len(variables) < 2:
        said = "; ".join(f"{name} {why}" for name, why in left_out.items())
        raise ValueError(
            f"{raw.name}: {len(variables)} column{'s' * (not variables)} of numbers to learn from "
            f"({said[:500] or 'no other'}), two are needed; forecast-universal forecasts single sensors untrained"
        )
    chosen = tuple(name for name in variables if name in targets or not targets)
    kept = training[:, [raw.columns.index(name) for name in variables]]
    warnings = [*missing(variables, kept), *copies(variables, chosen, kept, horizon)]
    return Choice(variables, chosen, left_out, tuple(warnings))


def missing(names: Sequence[str], values: Floats) -> Iterator[str]:
    for name, share in zip(names, np.isnan(values).mean(0), strict=True):
        if share > MOSTLY:
            yield f"`{name}` is missing in {share:.0%} of the training rows."


def copies(names: Sequence[str], targets: Sequence[str], values: Floats, horizon: int) -> Iterator[str]:
    """Warnings about columns whose differences correlate with those of a target, now or up to ``horizon`` rows later.
    Levels are not compared: two slow levels always correlate."""
    steps = np.diff(values[-COMPARED:], axis=0)
    there = ~np.isnan(steps)
    centred = np.where(there, steps - np.nanmean(np.where(there.any(0), steps, 0.0), axis=0), 0.0)
    varied = np.array([len(np.unique(column[known])) >= VARIED for column, known in zip(steps.T, there.T, strict=True)])
    squares, mask = centred**2, there.astype(np.float64)
    wanted = [names.index(name) for name in targets]
    alike = np.full((horizon + 1, len(names), len(wanted)), np.nan)
    for ahead in range(min(horizon, len(steps) - 2) + 1):
        now, then = slice(0, len(steps) - ahead), slice(ahead, None)
        both = centred[now].T @ centred[then][:, wanted]
        norm = (squares[now].T @ mask[then][:, wanted]) * (mask[now].T @ squares[then][:, wanted])
        alike[ahead] = both / np.sqrt(np.where(norm > 0, norm, np.inf))
    for number, target in enumerate(wanted):
        for column, name in enumerate(names):
            if column == target or not (varied[column] and varied[target]):
                continue
            ahead = int(np.nanargmax(np.abs(alike[:, column, number])))
            found = float(alike[ahead, column, number])
            if abs(found) < ALIKE:
                continue
            said = f"(correlation of differences {found:.3f})"
            if ahead:
                yield (
                    f"`{name}` moves as `{names[target]}` will {ahead} rows later {said}. If it is not known by then, "
                    f"the scores are too good to be true: leave it out (--without {name})."
                )
            elif column < target or name not in targets:  # one warning for a pair
                yield f"`{name}` moves as `{names[target]}` does {said}: one of them may be a copy."
