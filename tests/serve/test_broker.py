"""What the daemon's MQTT broker acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from streamer.engine.catalogue import resolve
from streamer.metrics import Metrics
from streamer.sensors.columns import Forecasts, ReadingBatch, StepResult
from streamer.sensors.host import Sensors
from streamer.sensors.ingest import Fleet
from streamer.serve.outbox import Outbox
from streamer.serve.readings.broker import Broker
from streamer.settings import Settings
from streamer.sources.mqtt import Mqtt
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


def test_a_batch_for_which_there_is_no_room_waits_and_the_others_go_on(tmp_path: Path) -> None:
    settings = Settings(state_directory=tmp_path, max_sensors=4, lanes=1, max_waiting_readings=2)
    sensors = Sensors(settings, Metrics(CollectorRegistry()))
    sensors.load([toy_plant(tmp_path), resolve("forecast-online")])
    plant, single = sensors.fleets

    def rows(value: float) -> ReadingBatch:
        return ReadingBatch(["north"] * 2, np.array([value, value + 3600]), np.full((2, 3), value))

    async def main(leaves: bool) -> dict[str, Exception]:
        broker = Broker(sensors, Outbox(asyncio.get_running_loop()))
        lane = sensors.fleets[plant].lanes[0]
        with lane.lock:  # its first batch is not run meanwhile
            assert await broker._take({plant: rows(0.0)}) == {}
            batches = {plant: rows(9999.0), single: ReadingBatch(["pump"], np.array([np.nan]), np.ones(1))}
            taking = asyncio.create_task(broker._take(batches))
            async with asyncio.timeout(60):
                while "pump" not in sensors.names():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0)
            assert not taking.done()
            if leaves:
                broker._leaving.set()
                return await asyncio.wait_for(taking, 60)
        return await asyncio.wait_for(taking, 60)

    try:
        left = asyncio.run(main(leaves=True))
        assert list(left) == [plant]
        assert "max_waiting_readings" in str(left[plant])
        assert sensors.fleets[plant].drain(60)
        assert asyncio.run(main(leaves=False)) == {}
        assert sensors.metrics.registry.get_sample_value("streamer_refused_readings_total", {"reason": "busy"}) is None
    finally:
        sensors.close()


def test_sensors_of_one_name_in_two_models_are_told_apart(tmp_path: Path) -> None:
    sensors = Sensors(Settings(state_directory=tmp_path, max_sensors=4, lanes=1), Metrics(CollectorRegistry()))
    sensors.load([resolve("forecast-online"), toy_plant(tmp_path)])
    single, plant = sensors.fleets
    published, forgotten = list[tuple[str, float]](), list[str]()

    class Said:
        def publish(self, forecasts: Forecasts) -> None:
            published.extend((name, float(np.ravel(row)[0])) for name, row in zip(*_said(forecasts), strict=True))

        def forget(self, stream: str, targets: Sequence[str]) -> None:
            forgotten.append(stream)

    async def main() -> None:
        broker = Broker(sensors, Outbox(asyncio.get_running_loop()))
        broker._mqtt = cast(Mqtt, Said())
        results = list[tuple[Fleet, StepResult]]()
        sensors.watch(lambda fleet, result: results.append((fleet, result)))
        sensors.watch_forgotten(broker._forget)
        for fleet, shape, value in ((plant, (1, 3), 1.0), (single, (1,), 2.0), (plant, (1, 3), 3.0)):
            batch = ReadingBatch(["north"], np.array([value * 3600]), np.full(shape, value))
            await sensors.ask(batch, "mqtt", sensors.fleets[fleet])
            broker._publish(*results.pop())
        assert published == [("north", 1.0), ("north", 2.0), ("plant/north", 3.0)]
        assert await asyncio.wrap_future(sensors.fleets[single].forget("north"))
        assert forgotten == ["north", "plant/north"]  # which is plainly north from now on
        batch = ReadingBatch(["north"], np.array([4.0 * 3600]), np.full((1, 3), 4.0))
        await sensors.ask(batch, "mqtt", sensors.fleets[plant])
        broker._publish(*results.pop())
        assert published[-1] == ("north", 4.0)

    try:
        asyncio.run(main())
    finally:
        sensors.close()


def _said(forecasts: Forecasts) -> tuple[list[str], np.ndarray]:
    return list(forecasts.names), forecasts.values
