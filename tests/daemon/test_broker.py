"""The daemon and a real MQTT broker: what comes in is kept, over restarts, and forecasts go back out."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from streamer.engine.catalogue import resolve
from tests.daemon.mosquitto import Broker, say
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import until
from tests.daemon.test_sensors import forecast

MODEL = resolve("forecast-online")


def settings(broker: Broker, **more: Any) -> dict[str, Any]:
    topics = "plant/+/temperature,tele/+/SENSOR time=Time ENERGY.Power"
    return {"mqtt_host": "127.0.0.1", "mqtt_port": broker.port, "mqtt_topics": topics, "mqtt_max_delay": 1.0, **more}


def connected(running: Running) -> None:
    until(lambda: running.metrics().get("streamer_mqtt_connected") == 1)


def test_readings_come_in_and_forecasts_go_out(broker: Broker, tmp_path: Path) -> None:
    async def talk() -> list[tuple[str, dict[str, Any]]]:
        found = []
        async with asyncio.timeout(60), aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe("streamer/tele/#")
            await client.subscribe("homeassistant/sensor/#")
            for hour in range(30):
                power = {"Time": f"2026-03-01T{hour % 24:02}:{hour // 24:02}:00", "ENERGY": {"Power": hour}}
                await client.publish("tele/plug/SENSOR", json.dumps(power), qos=1)
            async for message in client.messages:
                found.append((message.topic.value, json.loads(message.payload)))
                if found[-1][1].get("time") and len({topic for topic, _ in found}) == 2:
                    return found
        raise AssertionError

    with daemon(tmp_path / "d", MODEL, **settings(broker, mqtt_discovery="homeassistant")) as running:
        connected(running)
        found = asyncio.run(talk())
        (config,) = [said for topic, said in found if topic.startswith("homeassistant/")]
        topic, last = found[-1] if found[-1][0].startswith("streamer/") else found[-2]
        assert config["state_topic"] == topic == "streamer/tele/plug/SENSOR.ENERGY.Power"
        assert len(last["quantiles"]["0.5"]) == 24
        assert forecast(running, "tele/plug/SENSOR.ENERGY.Power", 24)["time"] > 1.7e9
        # a message is counted once it is acknowledged, and its forecast may be there before
        until(lambda: running.metrics()['streamer_mqtt_messages_total{outcome="taken"}'] == 30)


@pytest.mark.long
def test_what_is_sent_while_the_daemon_is_down_is_not_lost(broker: Broker, tmp_path: Path) -> None:
    given = settings(broker, sensor_step=1)
    with daemon(tmp_path / "d", MODEL, **given) as running:
        connected(running)
        asyncio.run(say(broker.port, range(5), topic="plant/a/temperature"))
        forecast(running, "plant/a/temperature", 5)
        running.stop(signal.SIGKILL)
    asyncio.run(say(broker.port, range(5, 9), topic="plant/a/temperature"))
    with daemon(tmp_path / "d", MODEL, **given) as running:
        assert forecast(running, "plant/a/temperature", 9)["value"] == 8.0


@pytest.mark.long
def test_settings_that_can_not_work_are_told_at_the_start(tmp_path: Path) -> None:
    for more, message in (
        ({"mqtt_topics": "a/#/b"}, "a/#/b"),
        ({"mqtt_topics": "streamer/#"}, "read back our own forecasts"),
        ({"models": "digits"}, "no model for sensors"),
    ):
        running = Running(tmp_path, MODEL, wait=False, **{"mqtt_host": "127.0.0.1", **more})
        assert running.process.wait(60) == 78
        assert message in running.errors.read_text()
        running.manager.close()
