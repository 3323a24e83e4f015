"""What the daemon's MQTT broker acknowledges."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.columns import ReadingBatch
from streamer.sensors.host import Sensors
from streamer.serve.outbox import Outbox
from streamer.serve.readings.broker import Broker
from streamer.settings import Settings
from streamer.store import StoreError
from tests.plants import toy_plant
from tests.poison import raising


def test_a_model_that_can_not_take_its_batch_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = Sensors(Settings(state_directory=tmp_path, max_sensors=4, lanes=1), Metrics(CollectorRegistry()))
    sensors.load([toy_plant(tmp_path), resolve("forecast-online")])
    plant, single = sensors.fleets
    batches = {
        plant: ReadingBatch(["north"], np.array([np.nan]), np.ones((1, 3))),
        single: ReadingBatch(["pump"], np.array([np.nan]), np.ones(1)),
    }
    journal = sensors.fleets[plant].journal
    assert journal is not None
    monkeypatch.setattr(journal, "append", raising(journal.append, lambda *_: True, StoreError("disk full")))

    async def take() -> dict[str, Exception]:
        return await Broker(sensors, Outbox(asyncio.get_running_loop()))._take(batches)

    failed = asyncio.run(take())
    names = sensors.names()
    sensors.close()
    assert {model: str(error) for model, error in failed.items()} == {plant: "disk full"}
    assert names == ["pump"]
