"""The last readings of a sensor beside what was forecast of them: whatever the level, the breaks, the owners."""

from __future__ import annotations

import numpy as np
import pytest

from streamer.sensors.columns import StepResult
from streamer.sensors.history import History
from streamer.sensors.layout import RowLayout

LEVELS = ("0.05", "0.25", "0.5", "0.75", "0.95")
LAYOUT = RowLayout(2, LEVELS, (0.05, 0.25, 0.5, 0.75, 0.95))


def tell(history: History, time: float, values: list[float], *, broken: bool = False, known: bool = True) -> None:
    """Slots 0, 1, ... get these values; the forecast of the next step is the value less 2, 1, 0, and plus 1, 2."""
    count, given = len(values), np.array(values)
    curves = np.repeat(given[:, None, None] + np.arange(-2.0, 3.0), 2, axis=1)
    slots = np.arange(count)
    names = np.array(["x"] * count, np.object_)
    breaks = np.full(count, broken, np.uint8)
    anomalies, drifts = np.full(count, 0.5, np.float32), np.ones(count, np.float32)
    flags = np.full(count, known)
    result = StepResult(
        slots,
        names,
        slots,
        slots,
        np.full(count, time),
        given,
        np.ones(count),
        breaks,
        curves,
        anomalies,
        drifts,
        flags,
    )
    history.keep(result)


def test_a_band_is_that_of_the_reading_before() -> None:
    history = History(2, LAYOUT, 4)
    for at in range(3):
        tell(history, float(at), [10.0 + at, 50.0])
    found = history.read(0, 0)
    assert found.times.tolist() == [0, 1, 2]
    assert found.values.tolist() == [10, 11, 12]
    assert np.isnan(found.band[0]).all()
    assert found.band[1:].tolist() == [[8, 10, 12], [9, 11, 13]]
    assert history.read(1, 0).values.tolist() == [50, 50, 50]


def test_the_oldest_go() -> None:
    history = History(1, LAYOUT, 4)
    for at in range(11):
        tell(history, float(at), [float(at)])
    assert history.read(0, 0).times.tolist() == [7, 8, 9, 10]
    assert history.read(0, 0).values.tolist() == [7, 8, 9, 10]


@pytest.mark.parametrize("level", [1e9, -1e9, 1e-9, 1e29])
def test_a_level_costs_no_digits(level: float) -> None:
    history = History(1, LAYOUT, 4)
    for at in range(3):
        tell(history, float(at), [level * (1 + at * 1e-9)])
    assert history.read(0, 0).values == pytest.approx([level * (1 + at * 1e-9) for at in range(3)], rel=1e-15)


def test_a_break_has_no_band_and_a_missing_reading_no_probability() -> None:
    history = History(1, LAYOUT, 4)
    tell(history, 0.0, [1.0])
    tell(history, 1.0, [2.0], broken=True)
    tell(history, 2.0, [np.nan])
    tell(history, 3.0, [3.0])
    found = history.read(0, 0)
    assert np.isnan(found.band[1]).all()
    assert not np.isnan(found.band[2]).any()
    assert np.isnan(found.anomalies).tolist() == [False, False, True, False]


def test_who_has_no_forecast_has_no_band() -> None:
    history = History(1, LAYOUT, 4)
    tell(history, 0.0, [np.nan], known=False)
    tell(history, 1.0, [5.0])
    found = history.read(0, 0)
    assert np.isnan(found.band).all()
    assert np.isnan(found.values).tolist() == [True, False]


def test_a_large_level_costs_no_digits_behind_a_missing_value() -> None:
    history = History(1, LAYOUT, 4)
    tell(history, 0.0, [np.nan], known=False)
    tell(history, 1.0, [1e9 + 0.25])
    assert history.read(0, 0).values[1] == 1e9 + 0.25


def test_a_slot_s_next_owner_sees_nothing_of_the_last() -> None:
    history = History(1, LAYOUT, 4)
    for at in range(6):
        tell(history, float(at), [1000.0])
    history.clear(0)
    assert len(history.read(0, 0).times) == 0
    tell(history, 9.0, [1.0])
    found = history.read(0, 0)
    assert (found.times.tolist(), found.values.tolist()) == ([9.0], [1.0])
    assert np.isnan(found.band).all()


def test_none_is_kept_where_none_is_wanted() -> None:
    history = History(1, LAYOUT, 0)
    tell(history, 0.0, [1.0])
    assert len(history.read(0, 0).times) == 0
    assert history.bytes_per_slot == 0
