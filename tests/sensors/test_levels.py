"""Sensors far from zero: what a fleet forecasts of them, and how it scores itself, has all its digits."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.sensors.look import look
from tests.sensors.support import feed, fleet


@pytest.mark.parametrize(("unit", "level"), [(1.0, 1e9), (1e-3, 101325.0), (1e25, 0.0), (1e-25, 0.0), (1e8, 1.7e19)])
def test_a_level_or_a_unit_costs_no_digits(unit: float, level: float) -> None:
    noise = np.random.default_rng(0).standard_normal(60)
    shape = 3 * np.sin(np.arange(60) * np.pi / 12) + 0.3 * noise
    made = fleet()
    try:
        readings = [
            row
            for hour, value in enumerate(shape)
            for row in (("plain", float(hour), float(value)), ("far", float(hour), float(value * unit + level)))
        ]
        found = feed(made, readings)
        plain, far = found.quantiles[::2], (found.quantiles[1::2] - level) / unit
        assert np.abs(far - plain).max() < 0.01
        (near, other) = (look(made, name) for name in ("plain", "far"))
        assert near is not None
        assert other is not None
        mine, theirs = near.life["all"], other.life["all"]
        assert mine.mae is not None
        assert theirs.mae is not None
        assert theirs.mae / unit == pytest.approx(mine.mae, rel=0.01)
        assert theirs.coverage == pytest.approx(mine.coverage, abs=0.01)
    finally:
        made.close()
