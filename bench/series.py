"""Sensor series of the shared data, in the splits of published tables of online forecasting."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.speech.data import data_folder

Values = NDArray[np.float64]

#: Rows an hour in the ETT files.
ETT = {"ETTh1": 1, "ETTh2": 1, "ETTm1": 4}
NAMES = ("ETTh2", "ETTm1", "Exchange")
MONTH = 30 * 24  # hours


@dataclass(frozen=True)
class Series:
    """``values`` [N, C], standardised by mean and deviation of the training rows. ``train`` and ``validation``: numbers
    of rows, in this order; the rest is the test. ``step``: seconds between rows."""

    name: str
    values: Values
    train: int
    validation: int
    step: float

    @property
    def test(self) -> int:
        """First row of the test."""
        return self.train + self.validation

    @property
    def month(self) -> int:
        """Rows of 30 days."""
        return round(30 * 86400 / self.step)

    def phases(self) -> Values:
        """[N, 2]: time of day and of week of every row, in [0, 1)."""
        time = np.arange(len(self.values)) * self.step
        return np.stack([time / 86400 % 1, time / (7 * 86400) % 1], 1)


def read(name: str) -> Values:
    """The file's values [N, C], not scaled. Raises ``FileNotFoundError``."""
    folder = data_folder() / "sensors"
    if name in ETT:
        with gzip.open(folder / "ett" / f"{name}.csv.gz", "rt", newline="") as file:
            rows = list(csv.reader(file))
        return np.array([row[1:] for row in rows[1:]], np.float64)
    with gzip.open(folder / "exchange_rate" / "exchange_rate.txt.gz", "rt") as file:
        return np.array([line.split(",") for line in file.read().split()], np.float64)


def dsof(name: str) -> Series:
    """The split of DSOF (ICLR 2025), which is FSNet's: 4, 1 and 15 months of ETT; 20, 5 and 75 % of the others."""
    raw = read(name)
    if name in ETT:
        month = MONTH * ETT[name]
        return _scaled(name, raw[: 20 * month], 4 * month, month, 3600 / ETT[name])
    train, test = int(len(raw) * 0.2), int(len(raw) * 0.25)
    return _scaled(name, raw, train, test - train, 86400.0)


def adapt_z(name: str) -> Series:
    """The split of ADAPT-Z (ICLR 2026): 60, 10 and 30 % of the whole file."""
    raw = read(name)
    train, test = int(len(raw) * 0.6), int(len(raw) * 0.7)
    return _scaled(name, raw, train, test - train, 3600 / ETT[name])


def _scaled(name: str, raw: Values, train: int, validation: int, step: float) -> Series:
    values = (raw - raw[:train].mean(0)) / raw[:train].std(0)
    return Series(name, values, train, validation, step)
