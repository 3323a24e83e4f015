"""Home Assistant's side of a real broker: announcements, availability, curves, and forgotten sensors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from streamer.engine.catalogue import resolve
from streamer.sources.mqtt import Subscription
from tests.daemon.mosquitto import Broker, Daemon, heard, other, until
from tests.daemon.running import daemon
from tests.serve.test_mqtt_topics import told

HERE = {"discovery": "homeassistant"}


@contextlib.asynccontextmanager
async def seen(port: int) -> AsyncIterator[dict[str, bytes]]:
    """The last payload of every topic, as a client sees them: of retained ones from the start on."""
    found: dict[str, bytes] = {}

    async def listen(client: aiomqtt.Client) -> None:
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            found[message.topic.value] = message.payload

    async with other(port, "#") as client:
        task = asyncio.create_task(listen(client))
        try:
            yield found
        finally:
            task.cancel()
            await asyncio.wait([task])


def test_forecasts_and_announcements_are_seen(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        # the status is among it, and what we announce, which must not come back
        subscriptions = Subscription.parse("n/+"), Subscription.parse("homeassistant/#")
        async with (
            daemon.running(broker.port, *subscriptions, **HERE, max_discovered=1) as mqtt,
            other(broker.port, "streamer/n/#", "homeassistant/+/+/config") as client,
        ):
            (own, connected) = (await heard(client, 1))[0]
            assert connected["state_topic"] == "streamer/$status"
            mqtt.publish(told(**{"n/a+": [1.0, 2.0, 3.0], "n/b": [np.nan, 5.0, 6.0]}))
            (topic, config), (second, anomaly), *forecasts = await heard(client, 4)
            assert topic == f"homeassistant/sensor/{config['unique_id']}/config"
            assert second == f"homeassistant/binary_sensor/{config['unique_id']}/config"
            assert [topic for topic, _ in forecasts] == [config["state_topic"], "streamer/n/b"]
            assert config["state_topic"] == anomaly["state_topic"] == "streamer/n/a_"
            assert (forecasts[0][1]["value"], forecasts[0][1]["quantiles"]["0.5"]) == (1.0, [2.0, 3.0])
            await client.publish("homeassistant/status", "offline")
            await client.publish("homeassistant/status", "online")
            assert await heard(client, 2) == [(topic, config), (second, anomaly)]
            await until(lambda: daemon.messages["status"] >= 2)  # this broker sends twice where subscriptions overlap
            assert set(daemon.messages) == {"status"}
        assert daemon.forecasts == {"sent": 2, "undiscovered": 1, "superseded": 0}
        async with seen(broker.port) as late:
            await until(lambda: len(late) >= 7)
        curve = json.loads(late[config["json_attributes_topic"]])
        assert curve["quantiles"]["0.5"] == [2.0, 3.0]
        assert late["streamer/$status"] == b"offline"  # it went, and has said so
        assert {own, topic, second, "streamer/n/a_", "streamer/n/b"} < set(late)
        assert not any("n/b" in topic for topic in late if "$curve" in topic)  # beyond max_discovered

    asyncio.run(main())


def test_a_forgotten_sensor_is_taken_back(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port, **HERE) as mqtt, seen(broker.port) as topics:
            mqtt.publish(told(**{"n/a.x": [1.0, 2.0, 3.0], "n/b": [4.0, 5.0, 6.0]}))
            await until(lambda: {"streamer/n/a.x", "streamer/n/b"} <= set(topics))
            mqtt.forget("n/a.x")
            await until(lambda: topics["streamer/n/a.x"] == b"")
            mine = {topic for topic in topics if "n_a_x" in topic or "n/a.x" in topic}
            assert len(mine) == 4
            assert {topics[topic] for topic in mine} == {b""}
        async with seen(broker.port) as left:
            await until(lambda: "streamer/n/b" in left)
            assert not mine & set(left)
        # who comes back is announced again
        async with daemon.running(broker.port, **HERE) as mqtt, seen(broker.port) as topics:
            mqtt.forget("n/b")
            mqtt.publish(told(**{"n/b": [4.0, 5.0, 6.0]}))
            await until(lambda: topics.get("streamer/n/b", b"") != b"")
            await until(lambda: any("_n_b_" in topic and topics[topic] for topic in topics))

    asyncio.run(main())


def test_without_discovery_there_are_forecasts_alone(broker: Broker) -> None:
    async def main() -> None:
        daemon = Daemon()
        async with daemon.running(broker.port) as mqtt, seen(broker.port) as topics:
            mqtt.publish(told(a=[1.0, 2.0]))
            await until(lambda: "streamer/a" in topics)
            mqtt.forget("a")
            await until(lambda: topics["streamer/a"] == b"")
            assert set(topics) == {"streamer/a"}

    asyncio.run(main())


class HomeAssistantClient:
    """paho's own client, as Home Assistant has it."""

    def __init__(self, port: int) -> None:
        self.topics: dict[str, bytes] = {}
        self.history: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2, "ha")
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", 1)
        self._client.loop_start()

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        self.topics[message.topic] = message.payload
        self.history.append((message.topic, message.payload))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listener(broker: Broker) -> Any:
    made = HomeAssistantClient(broker.port)
    yield made
    made.close()


def wait(there: Callable[[], bool]) -> None:
    asyncio.run(until(there))


def settings(broker: Broker) -> dict[str, Any]:
    said = {"mqtt_host": "127.0.0.1", "mqtt_port": broker.port, "mqtt_discovery": "homeassistant"}
    return {**said, "mqtt_prefix": "house", "checkpoint_seconds": 0.2}


def test_a_daemon_that_is_killed_is_unavailable(broker: Broker, listener: HomeAssistantClient, tmp_path: Path) -> None:
    with daemon(tmp_path / "daemon", resolve("forecast-universal"), **settings(broker)) as running:
        wait(lambda: listener.topics.get("house/$status") == b"online")
        running.stop(signal.SIGKILL)
        wait(lambda: listener.topics["house/$status"] == b"offline")


@pytest.mark.long
def test_a_daemon_comes_back_as_the_same(broker: Broker, listener: HomeAssistantClient, tmp_path: Path) -> None:
    head = "time,id,Wärme °C,Feuchte\n"
    csv = head + "".join(f"2026-01-01T00:{m:02d}:00Z,Küche 1,{20 + m % 3},{60 - m % 5}\n" for m in range(12))
    status, topic = "house/$status", "house/Küche 1.Wärme °C"

    def configs() -> dict[str, str]:
        said = {t: json.loads(p) for t, p in listener.topics.items() if t.startswith("homeassistant/") and p}
        return {topic: config["unique_id"] for topic, config in said.items()}

    with daemon(tmp_path / "daemon", resolve("forecast-universal"), **settings(broker)) as first:
        wait(lambda: listener.topics.get(status) == b"online")
        assert first.ask("POST", "/v1/readings", csv.encode()).status == 200
        wait(lambda: topic in listener.topics)
        wait(lambda: len(configs()) == 5)
        before = configs()
        curve = json.loads(listener.topics["house/$curve/Küche 1.Wärme °C"])
        assert len(curve["times"]) == len(curve["quantiles"]["0.5"]) > 10
        assert listener.topics[status] == b"online"
        first.stop(signal.SIGKILL)
        wait(lambda: listener.topics[status] == b"offline")
    with daemon(tmp_path / "daemon", resolve("forecast-universal"), **settings(broker)) as second:
        wait(lambda: listener.topics[status] == b"online")
        more = f"{head}2026-01-01T00:12:00Z,Küche 1,21,60\n"
        assert second.ask("POST", "/v1/readings", more.encode()).status == 200
        wait(lambda: json.loads(listener.topics[topic])["time"] == 1767226320.0)
        assert configs() == before
        path = "/v1/forecast/K%C3%BCche%201.W%C3%A4rme%20%C2%B0C"
        assert second.ask("DELETE", path).status == 204
        wait(lambda: listener.topics[topic] == b"")
        assert len(configs()) == 3  # the other sensor's, and the daemon's own
        assert second.stop() == 0
        wait(lambda: listener.topics[status] == b"offline")
