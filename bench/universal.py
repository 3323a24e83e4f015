"""The shipped forecaster on sensors outside of its training data, compared with models fitted to each: MASE over 24
steps.

Series: M4 hourly (training part as history, the competition's test as truth), NAB's, and the two held-out files of the
occupancy data; the last two with several origins. The forecaster runs in the engine, one reading at a time, from the
first reading on. AutoETS and AutoTheta (statsforecast, extra ``bench``) are fitted at each origin to at most
``HISTORY`` readings. MASE: mean absolute error over that of the seasonal naive forecast within the history (Hyndman and
Koehler 2006), so that different sensors can be averaged. Needs the shared data set or ``--data``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from bench import nab
from bench.replay import clocks, replay, rows
from bench.report import finish
from models.speech.data import data_folder
from streamer.engine.catalogue import resolve
from streamer.tasks import Forecast

Values = NDArray[np.float64]
STEPS = 24
HISTORY = 1000
#: The origins of forecasts, as shares of a series.
ORIGINS = (0.5, 0.7, 0.9)


@dataclass
class Sensor:
    """``values`` and ``times`` [N] (unix seconds). ``origins``: numbers of readings before a forecast. ``season``:
    readings of a day."""

    kind: str
    values: Values
    times: Values
    season: int
    origins: list[int]


def m4(folder: Path, every: int) -> Iterator[Sensor]:
    def read(part: str) -> list[Values]:
        with gzip.open(folder / "M4" / f"Hourly-{part}.csv.gz", "rt", newline="") as file:
            lines = list(csv.reader(file))[1:]
        return [np.array([float(cell) for cell in line[1:] if cell]) for line in lines]

    for history, truth in list(zip(read("train"), read("test"), strict=True))[::every]:
        values = np.concatenate([history, truth])
        yield Sensor("M4 hourly", values, np.arange(len(values)) * 3600.0, 24, [len(history)])


def numenta(folder: Path) -> Iterator[Sensor]:
    for one in nab.read(folder / "NAB"):
        step = float(np.median(np.diff(one.times)))
        yield Sensor("NAB", one.values, one.times, round(86400 / step), _origins(len(one.values)))


def occupancy(folder: Path) -> Iterator[Sensor]:
    for name in ("datatest", "datatest2"):
        with gzip.open(folder / "occupancy" / f"{name}.txt.gz", "rt", newline="") as file:
            lines = list(csv.reader(file))[1:]
        times = np.array([nab.seconds(line[1]) for line in lines])
        for column in range(2, 7):
            values = np.array([float(line[column]) for line in lines])
            yield Sensor("occupancy", values, times, 1440, _origins(len(values)))


def _origins(length: int) -> list[int]:
    return [int(share * length) for share in ORIGINS]


def streamed(path: Path, sensors: list[Sensor]) -> list[list[Values]]:
    """The median forecasts [24] at the origins of every sensor."""
    found: list[list[Values]] = [[] for _ in sensors]

    def take(number: int, row: int, event: Forecast) -> None:
        if row + 1 in sensors[number].origins:
            found[number].append(np.array(event.quantiles["0.5"][:STEPS]))

    ends = [max(sensor.origins) for sensor in sensors]
    fed = [rows(s.values[:end], clocks(s.times[:end])) for s, end in zip(sensors, ends, strict=True)]
    replay(path, fed, take)
    return found


def seasonal_naive(history: Values, season: int) -> Values:
    return np.resize(history[-season:], STEPS)


def persistence(history: Values, season: int) -> Values:
    return np.full(STEPS, history[-1])


def fitted(name: str) -> Callable[[Values, int], Values]:
    from statsforecast import models

    def forecast(history: Values, season: int) -> Values:
        model = getattr(models, name)(season_length=season if season <= len(history) // 2 else 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                mean = np.asarray(model.forecast(y=history.astype(np.float64), h=STEPS)["mean"])
            except Exception:  # the model can't be fitted to a constant or degenerate history
                return persistence(history, season)
        return mean if np.isfinite(mean).all() else persistence(history, season)

    return forecast


def mase(forecast: Values, sensor: Sensor, origin: int) -> float | None:
    """MASE; ``None`` if the seasonal naive forecast has no error."""
    history, truth = sensor.values[:origin], sensor.values[origin : origin + STEPS]
    lag = sensor.season if sensor.season < origin else 1
    scale = np.abs(history[lag:] - history[:-lag]).mean()
    return float(np.abs(forecast[: len(truth)] - truth).mean() / scale) if scale > 0 else None


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench universal", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with M4, NAB and occupancy in it")
    parser.add_argument("--model", default="forecast-universal", help="shipped name or path")
    parser.add_argument("--every", type=int, default=40, help="of M4's 414 series (default 40: the others are slow)")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(argv)
    folder = given.data or data_folder() / "sensors"
    sensors = [*m4(folder, given.every), *numenta(folder), *occupancy(folder)]
    ours = streamed(resolve(given.model), sensors)
    baselines = {
        "persistence": persistence, "seasonal naive": seasonal_naive,
        "AutoETS": fitted("AutoETS"), "AutoTheta": fitted("AutoTheta"),
    }  # fmt: skip
    scores: dict[str, dict[str, list[float]]] = {}
    pairs = list(zip(sensors, ours, strict=True))
    for sensor, medians in track(pairs, "fitting the others", console=Console(stderr=True)):
        for origin, median in zip(sensor.origins, medians, strict=True):
            if mase(median, sensor, origin) is None:
                continue
            history = sensor.values[max(0, origin - HISTORY) : origin]
            said = {"streamer": median} | {name: one(history, sensor.season) for name, one in baselines.items()}
            for name, forecast in said.items():
                value = mase(forecast, sensor, origin)
                assert value is not None
                scores.setdefault(sensor.kind, {}).setdefault(name, []).append(value)
    results = {
        kind: {name: {"mean": float(np.mean(v)), "median": float(np.median(v))} for name, v in by.items()}
        | {"windows": len(by["streamer"])}
        for kind, by in scores.items()
    }
    names = ["streamer", *baselines]
    table = [
        (kind, found["windows"], *(f"{found[n]['mean']:.2f} / {found[n]['median']:.2f}" for n in names))
        for kind, found in results.items()
    ]  # fmt: skip
    finish(
        "universal",
        {"model": given.model, "steps": STEPS, "mase": results},
        columns=("series", "windows", *(f"{name}: mean / median" for name in names)),
        rows=table,
        as_json=given.json,
    )
    return 0
