"""Numbers that stand for no value, whatever way they came."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.host import Sensors
from streamer.settings import Settings


def test_they_are_missing_for_every_sensor_and_no_other_number_is(tmp_path: Path) -> None:
    settings = Settings(missing=("-999", "err"), state_directory=tmp_path, max_sensors=4)
    sensors = Sensors(settings, Metrics())
    sensors.load([resolve("forecast-online")])
    try:
        batch = ReadingBatch.made(["a", "b", "a", "b"], [1.0, 1.0, 2.0, 2.0], [-999.0, -999.5, 5.0, -999.0])
        receipt, forecasts = asyncio.run(sensors.ask(batch, "test"))
        assert receipt.taken == 4
        np.testing.assert_equal(forecasts.values, [np.nan, -999.5, 5.0, np.nan])
    finally:
        sensors.drain(10.0)
        sensors.close()


def test_which_readings_were_left_out_is_told(tmp_path: Path) -> None:
    sensors = Sensors(Settings(state_directory=tmp_path, max_sensors=4), Metrics())
    sensors.load([resolve("forecast-online")])
    try:
        times = [60.0 * i for i in range(12)]
        names = ["a"] * 12 + ["b", "a", "a", "b"]
        batch = ReadingBatch.made(names, [*times, 60.0, 60.0, 660.0, 120.0], [1.0] * 16)
        receipt, run = asyncio.run(sensors.tell(batch, "test", None, 30.0))
        assert run is not None
        assert (receipt.taken, run.late, run.duplicates, len(run)) == (16, [("a", 60.0)], [("a", 660.0)], 0)
    finally:
        sensors.drain(10.0)
        sensors.close()


def test_what_stands_for_no_value_may_be_a_list_or_words_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MISSING", "-999, err")
    assert Settings.load().missing == ("-999", "err")
