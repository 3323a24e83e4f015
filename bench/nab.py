"""Numenta's anomaly benchmark (Lavin and Ahmad 2015), streaming: one reading at a time through the engine.

The detector is only the forecaster's probability of every reading; it was not trained on these series. The novelty test
(:mod:`models.forecast.novelty`) was designed on synthetic sensors and on every other one of the series, by name. The
others are also scored separately: their scores were visible during the design, but no setting was chosen by them.

Scores are those of the benchmark's repository: one threshold per profile for the whole corpus; 100 is perfect, 0 is a
detector without alarms. Only the available series are scored; the published numbers, for orientation, are of all 58.
Needs the shared data set or ``--data DIR`` (with ``data/`` and ``labels/combined_windows.json``).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.replay import clocks, replay, rows
from bench.report import finish
from models.speech.data import data_folder
from streamer.engine.catalogue import resolve
from streamer.tasks import Forecast

Values = NDArray[np.float64]
#: Weights of a detection, of a missed window, and of a false alarm.
PROFILES = {"standard": (1.0, 1.0, 0.11), "low FP": (1.0, 1.0, 0.22), "low FN": (1.0, 2.0, 0.11)}
PUBLISHED = {
    "ARTime": (74.9, 65.1, 80.4), "Numenta HTM": (70.5, 62.6, 75.2), "CAD OSE": (69.9, 67.0, 73.2),
    "KNN-CAD": (58.0, 43.4, 64.8), "windowed Gaussian": (39.6, 20.9, 47.4),
}  # fmt: skip


@dataclass(frozen=True)
class Labelled:
    """``times`` [N] in unix seconds, ``values`` [N]. ``windows``: first and last row, inclusive. Rows before
    ``probation`` do not count."""

    name: str
    times: Values
    values: Values
    windows: list[tuple[int, int]]

    @property
    def probation(self) -> int:
        return min(int(0.15 * len(self.values)), 750)


def read(folder: Path) -> list[Labelled]:
    labels: dict[str, list[list[str]]] = json.loads((folder / "labels" / "combined_windows.json").read_text())
    found = []
    for name, spans in labels.items():
        path = folder / "data" / name
        packed = path.with_name(path.name + ".gz")
        if not packed.exists() and not path.exists():
            continue
        with gzip.open(packed, "rt", newline="") if packed.exists() else path.open(newline="") as file:
            lines = list(csv.DictReader(file))
        times = np.array([seconds(line["timestamp"]) for line in lines])
        place = {time: i for i, time in enumerate(times.tolist())}
        windows = [(place[seconds(first)], place[seconds(last)]) for first, last in spans]
        found.append(Labelled(name, times, np.array([float(line["value"]) for line in lines]), windows))
    if not found:
        raise FileNotFoundError(f"{folder}: none of the benchmark's series is under data/")
    return found


def seconds(text: str) -> float:
    return datetime.fromisoformat(text.split(".")[0]).replace(tzinfo=UTC).timestamp()


def worth(rows: int, windows: list[tuple[int, int]]) -> tuple[Values, NDArray[np.int64]]:
    """For each row the unweighted value of an alarm, and the number of its window (-1: none)."""

    def value(position: float) -> float:
        return float(2 / (1 + np.exp(5 * position)) - 1)

    values, inside = np.full(rows, -1.0), np.full(rows, -1, np.int64)
    for number, (left, right) in enumerate(windows):
        width = right - left + 1
        for i in range(left, right + 1):
            values[i] = value(-(right - i + 1) / width) / value(-1.0)
            inside[i] = number
        behind = windows[number + 1][0] if number + 1 < len(windows) else rows
        for i in range(right + 1, behind):
            position = (i - right) / max(1, width - 1)
            values[i] = value(position) if position <= 3 else -1.0
    return values, inside


def score(series: list[Labelled], scores: list[Values], profile: tuple[float, float, float]) -> tuple[float, float]:
    """(normalised score, threshold) at the best threshold for all series together. ``scores``: of each series [N],
    higher for anomalies."""
    detected, missed, false = profile
    parts, count = [], 0
    for one, found in zip(series, scores, strict=True):
        values, inside = worth(len(found), one.windows)
        first = one.probation
        parts.append(np.stack([found, values, np.where(inside < 0, -1, inside + count)])[:, first:])
        count += len(one.windows)
    rows = np.concatenate(parts, 1)
    rows = rows[:, np.argsort(-rows[0], kind="stable")]
    best: dict[int, float] = {}
    total = -missed * count
    highest, threshold = total, float("inf")
    for i, (level, value, window) in enumerate(rows.T.tolist()):
        if window < 0:
            total += value * false
        else:
            before = best.get(window, -missed)
            now = max(value * detected, best.get(window, 0.0))
            best[window] = now
            total += now - before
        last = i + 1 == rows.shape[1] or rows[0, i + 1] != level
        if last and total > highest:
            highest, threshold = total, level
    null, perfect = -missed * count, detected * count
    return 100 * (highest - null) / (perfect - null), threshold


def detect(path: Path, series: list[Labelled]) -> list[Values]:
    """The forecaster's probability of every reading, [N] for each series."""
    found = [np.ones(len(one.values)) for one in series]

    def take(number: int, row: int, event: Forecast) -> None:
        assert event.anomaly is not None
        found[number][row] = event.anomaly

    fed = [rows(one.values, clocks(one.times)) for one in series]
    replay(path, fed, take)
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench nab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the benchmark's folder")
    parser.add_argument("--model", default="forecast-universal", help="shipped name or path")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    series = read(given.data or data_folder() / "sensors" / "NAB")
    scores = [-np.log(found) for found in detect(resolve(given.model), series)]
    order = sorted(range(len(series)), key=lambda i: series[i].name)
    table: list[tuple[str, ...]] = []
    results: dict[str, dict[str, Any]] = {}
    for part, chosen in (("all", order), ("design", order[::2]), ("held out", order[1::2])):
        some, theirs = [series[i] for i in chosen], [scores[i] for i in chosen]
        results[part] = {}
        for name, profile in PROFILES.items():
            value, threshold = score(some, theirs, profile)
            results[part][name] = {"score": value, "threshold": threshold}
        values = (f"{results[part][name]['score']:.1f}" for name in PROFILES)
        table.append((f"streamer, {part}", *values, f"{len(some)} series"))
    table += [(name, *(f"{value:.1f}" for value in values), "all 58") for name, values in PUBLISHED.items()]
    finish(
        "nab",
        {"model": given.model, "series": len(series), "profiles": results["all"], "parts": results},
        columns=("detector", *PROFILES, "of"),
        rows=table,
        as_json=given.json,
    )
    return 0
