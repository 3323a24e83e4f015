"""A small plant: what flows in now comes out three hours later, so that one column leads the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

HORIZON, LEAD = 6, 3
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)


def flows(count: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(out, in) [N]: the inflow is an autoregression on another level and scale than the outflow, which follows it."""
    rng = np.random.default_rng(seed)
    inflow = np.zeros(count + LEAD)
    for row in range(1, len(inflow)):
        inflow[row] = 0.9 * inflow[row - 1] + rng.normal()
    outflow = inflow[:-LEAD] + rng.normal(0, 0.3, count)
    return 400 + 20 * outflow, 0.5 + 0.1 * inflow[LEAD:]


def write(path: Path, count: int = 1200, *, gaps: bool = True, extra: bool = True) -> Path:
    """A CSV with what such files have: missing hours and readings, a row twice, a dead sensor, words."""
    out, inflow = flows(count)
    rng = np.random.default_rng(1)
    header = "time,outflow,inflow" + ",dead,state" * extra
    lines = [header]
    for row in range(count):
        if gaps and row > 20 and (rng.random() < 0.01 or 500 <= row < 510):
            continue
        cells = [f"{out[row]:.3f}", f"{inflow[row]:.4f}"]
        if gaps and row > 20 and rng.random() < 0.02:
            cells[int(rng.integers(2))] = rng.choice(["", "NaN"])
        line = ",".join([f"{BEGIN + timedelta(hours=row):%Y-%m-%d %H:%M}", *cells, *["7.5", "on"] * extra])
        lines += [line] * (2 if gaps and row == 100 else 1)
    path.write_text("\n".join(lines) + "\n")
    return path
