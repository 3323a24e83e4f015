"""Run by scripts/make-sensor: hourly temperature and humidity of a greenhouse, with the faults of real sensors.

There is a daily pattern with noise, a lower temperature on weekends, a slow rise, and weather that changes within about
a day. Twice the logger was off (rows are missing); single readings are missing, too.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
HOURS = 28 * 24
OFF = (range(230, 235), range(500, 514))


def main(path: Path) -> None:
    rng = np.random.default_rng(3)
    hour = np.arange(HOURS)
    day, weekend = 2 * np.pi * hour / 24, hour // 24 % 7 >= 5
    weather, damp = np.zeros(HOURS), np.zeros(HOURS)
    for i in range(1, HOURS):
        weather[i] = 0.96 * weather[i - 1] + rng.normal(0, 0.35)
        damp[i] = 0.94 * damp[i - 1] + rng.normal(0, 0.9)
    sun = np.maximum(0.0, -np.cos(day - 0.4)) * (5 + 0.4 * weather)
    temperature = (
        16 + sun - 1.2 * np.cos(day - 0.8) - 2.0 * weekend + 0.004 * hour + weather + rng.normal(0, 0.15, HOURS)
    )
    humidity = 78 - 2.6 * (temperature - 17) + damp + rng.normal(0, 0.5, HOURS)
    missing = rng.random((HOURS, 2)) < 0.012
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("time,temperature,humidity\n")
        for i in range(HOURS):
            if any(i in off for off in OFF):
                continue
            values = (f"{temperature[i]:.2f}", f"{min(humidity[i], 100):.1f}")
            shown = ("" if gone else value for value, gone in zip(values, missing[i], strict=True))
            file.write(",".join([f"{START + timedelta(hours=i):%Y-%m-%d %H:%M}", *shown]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
