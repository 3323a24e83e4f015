"""Series for training forecasters: the training parts of the shared data, and synthetic processes."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.speech.data import data_folder

Values = NDArray[np.float32]

DAY, WEEK = 86400.0, 7 * 86400.0
BEIJING = ("PM2.5", "PM10", "SO2", "NO2", "CO", "O3", "TEMP", "PRES", "DEWP", "RAIN", "WSPM")


@dataclass
class Sensor:
    """``values`` [N] float32, NaN where missing, ``step`` seconds apart, the first at ``start`` seconds of the week."""

    source: str
    values: Values
    step: float
    start: float = 0.0


def ett(name: str, first: float = 0, behind: float = 4) -> Iterator[Sensor]:
    """Months ``first`` to ``behind``, of 30 days, of ETTh2 or ETTm1. Published splits of online forecasting train on
    the first four, validate on the fifth, and test on the next fifteen."""
    step = 900.0 if name.startswith("ETTm") else 3600.0
    with gzip.open(data_folder() / "sensors" / "ett" / f"{name}.csv.gz", "rt", newline="") as file:
        rows = list(csv.reader(file))[1:]
    month = 30 * DAY / step
    for column in zip(*(row[1:] for row in rows[int(first * month) : int(behind * month)]), strict=True):
        yield Sensor(name, np.array(column, np.float32), step)


def exchange(first: float = 0.0, behind: float = 0.2) -> Iterator[Sensor]:
    """The share from ``first`` to ``behind`` of the daily exchange rates. Published splits train on the first fifth and
    validate on the next twentieth."""
    with gzip.open(data_folder() / "sensors" / "exchange_rate" / "exchange_rate.txt.gz", "rt") as file:
        rows = [line.split(",") for line in file.read().split()]
    for column in zip(*rows[int(len(rows) * first) : int(len(rows) * behind)], strict=True):
        yield Sensor("exchange", np.array(column, np.float32), DAY)


def beijing() -> Iterator[Sensor]:
    for path in sorted((data_folder() / "sensors" / "beijing_air").glob("*.csv.gz")):
        with gzip.open(path, "rt", newline="") as file:
            rows = list(csv.DictReader(file))
        for name in BEIJING:
            yield Sensor("beijing", np.array([_number(row[name]) for row in rows], np.float32), 3600.0)


def occupancy() -> Iterator[Sensor]:
    """The training file only; the two test files are held out."""
    with gzip.open(data_folder() / "sensors" / "occupancy" / "datatraining.txt.gz", "rt", newline="") as file:
        rows = list(csv.reader(file))[1:]
    for column in range(2, 7):
        yield Sensor("occupancy", np.array([row[column] for row in rows], np.float32), 60.0)


def _number(text: str) -> float:
    return float(text) if text not in ("", "NA") else float("nan")


def synthetic(count: int, length: int = 3000, seed: int = 1) -> Iterator[Sensor]:
    """Random sums and products of typical processes: seasons, trends, autoregression, random walks, regimes, spikes,
    long zeros, missing readings."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        step = float(rng.choice([60.0, 300.0, 900.0, 3600.0, DAY]))
        time = np.arange(length) * step
        x = np.zeros(length)
        if rng.random() < 0.7 and step < DAY:
            x += rng.gamma(1.0, 1.5) * _season(rng, time / DAY, 6)
        if rng.random() < 0.3:
            x += rng.gamma(1.0, 0.7) * _season(rng, time / WEEK, 7)
        if rng.random() < 0.3:
            x += rng.gamma(1.0, 0.7) * _season(rng, np.arange(length) / rng.uniform(6, 200), 3)
        x += rng.gamma(1.0, 0.5) * _autoregression(rng, length)
        if rng.random() < 0.3:
            x += np.cumsum(rng.standard_normal(length)) * rng.gamma(1.0, 0.05)
        if rng.random() < 0.2:
            x += np.linspace(0, rng.normal() * 4, length)
        if rng.random() < 0.3:
            x += _regimes(rng, length, lambda: rng.normal() * 3)
        if rng.random() < 0.25:
            x *= _regimes(rng, length, lambda: float(np.exp(rng.normal() * 0.8)))
        if rng.random() < 0.2:
            spikes = rng.random(length) < rng.uniform(0.001, 0.03)
            x[spikes] += rng.standard_t(2, int(spikes.sum())) * 4
        if rng.random() < 0.15:
            x = np.maximum(x - np.quantile(x, rng.uniform(0.3, 0.9)), 0.0)
        if rng.random() < 0.1:
            x = np.round(x, 0)
        if rng.random() < 0.2:
            x[rng.random(length) < rng.uniform(0.01, 0.2)] = np.nan
        yield Sensor("synthetic", x.astype(np.float32), step, float(rng.uniform(0, WEEK)))


def _season(rng: np.random.Generator, turns: NDArray[np.float64], harmonics: int) -> NDArray[np.float64]:
    """A periodic function of ``turns`` [N] with random harmonics; one in five is nearly a square wave."""
    wave = np.zeros(len(turns))
    for k in range(1, harmonics + 1):
        wave += rng.normal() / k * np.sin(2 * np.pi * (k * turns + rng.random()))
    return np.tanh(wave * 5) if rng.random() < 0.2 else wave


def _autoregression(rng: np.random.Generator, length: int) -> NDArray[np.float64]:
    """A process with two poles inside the unit circle and normal or heavy-tailed noise, scaled to unit deviation."""
    noise = rng.standard_normal(length) if rng.random() < 0.7 else rng.standard_t(3, length)
    one, two = 1 - 10 ** rng.uniform(-2.5, -0.1), rng.uniform(-0.5, 0.9)
    x = np.zeros(length)
    a = b = 0.0
    for t in range(length):
        a, b = (one + two) * a - one * two * b + noise[t], a
        x[t] = a
    deviation: float = x.std() + 1e-9
    return x / deviation


def _regimes(rng: np.random.Generator, length: int, draw: Callable[[], float]) -> NDArray[np.float64]:
    """Constant pieces of random length, with values from ``draw``."""
    out = np.zeros(length)
    at = 0
    while at < length:
        until = at + int(rng.exponential(400)) + 5
        out[at:until] = draw()
        at = until
    return out


def training(seed: int = 1) -> list[Sensor]:
    """All training series of the universal forecaster."""
    return [
        *ett("ETTh2"),
        *ett("ETTm1"),
        *exchange(),
        *beijing(),
        *occupancy(),
        *synthetic(600, seed=seed),
    ]


def validation() -> list[Sensor]:
    """Later readings of some training sensors."""
    return [*ett("ETTh2", 4, 5), *ett("ETTm1", 4, 5), *exchange(0.2, 0.25)]
