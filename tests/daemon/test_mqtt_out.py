"""Forecasts to a real broker."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from streamer.sources.mqtt_link import Link, MqttError
from tests.daemon.mosquitto import Broker, Daemon, heard, other, say, until
from tests.serve.test_mqtt_topics import told


def test_the_latest_forecast_of_each_stream_waits_for_a_connection(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        broker.stop()
        async with daemon.trying(broker.port, prefix="home/forecasts", max_unsent=2) as mqtt:
            for value in range(5):
                mqtt.publish(told(a=[value, value, value], b=[value, value, value]))
            unknown = told(d=[0.0, 0.0])
            mqtt.publish(dataclasses.replace(unknown, known=~unknown.known))
            mqtt.publish(told(c=[7.0, 7.0]))
            assert daemon.forecasts == {"superseded": 8, "dropped": 1}
            await asyncio.to_thread(broker.start)
            await until(lambda: daemon.forecasts["sent"] == 2)
        async with other(broker.port, "home/forecasts/#") as client:
            found = await heard(client, 2)
        assert {topic: said["value"] for topic, said in found} == {"home/forecasts/b": 4.0, "home/forecasts/c": 7.0}

    asyncio.run(main())


def test_a_forecast_that_is_no_json_is_left_out(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port) as mqtt, other(broker.port, "streamer/#") as client:
            mqtt.publish(told(a=[1.0, np.inf], b=[1.0, 2.0]))
            assert [topic for topic, _ in await heard(client, 1)] == ["streamer/b"]
        assert daemon.forecasts == {"failed": 1, "sent": 1, "superseded": 0}
        assert daemon.connections == 1

    asyncio.run(main())


def test_a_forecast_whose_sending_fails_goes_out_with_the_next_connection(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, failures = Link.publish, [MqttError("Operation timed out")]

    async def failing(self: Link, *args: Any) -> int:
        if failures:
            raise failures.pop()
        return await publish(self, *args)

    async def main() -> None:
        daemon = Daemon()
        daemon.open.clear()
        async with daemon.running(broker.port) as mqtt, other(broker.port, "streamer/#") as client:
            await say(broker.port, range(1))
            await until(lambda: daemon.asked == 1)
            mqtt.publish(told(a=[1.0, 2.0]))
            await until(lambda: not failures)
            daemon.open.set()  # what was being taken when the connection ended is taken all the same
            assert [topic for topic, _ in await heard(client, 1)] == ["streamer/a"]
        assert daemon.connections == 2
        assert daemon.values[0] == 0

    monkeypatch.setattr(Link, "publish", failing)
    asyncio.run(main())
