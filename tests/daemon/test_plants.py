"""Plants in a real daemon, beside single sensors: rows by HTTP, WebSocket and MQTT, forecasts of every target back."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
import websockets

from streamer.engine.catalogue import resolve
from tests.daemon.mosquitto import Broker
from tests.daemon.running import Running, daemon
from tests.daemon.tenants import until
from tests.daemon.test_broker import connected
from tests.daemon.test_broker import settings as broker_settings
from tests.daemon.test_sensors import post
from tests.plants import GROWTH, toy_plant

SINGLE = resolve("forecast-online")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("plants")
    return [toy_plant(folder), toy_plant(folder, name="tank", variables=("inflow", "height"), targets=("height",))]


@pytest.fixture(scope="module")
def sensors(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with daemon(tmp_path_factory.mktemp("daemon"), SINGLE, *models, max_sensors=8, sensor_step=3600) as running:
        yield running


def look(running: Running, name: str, readings: int) -> dict[str, Any]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status, body = running.get(f"/v1/forecast/{name}")
        found = json.loads(body) if status == 200 else {}
        scores = [said["scores"] for said in found.get("targets", {"": found}).values() if "scores" in said]
        if scores and scores[0]["readings"] >= readings:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{name}: {status} {body[:200]}")


def medians(found: dict[str, Any]) -> dict[str, list[float]]:
    return {target: said["quantiles"]["0.5"] for target, said in found["targets"].items()}


def grown(value: float, rows: int) -> Any:
    return pytest.approx([value + GROWTH * rows * ahead for ahead in range(1, 5)], abs=1e-4)


def test_a_table_is_a_plant_by_the_names_of_its_columns(sensors: Running) -> None:
    lines = ["ts,inflow,outflow,level,note", *(f"{3600 * hour},1,{hour},{10 * hour},x" for hour in range(5))]
    status, body, _ = post(sensors, "/v1/readings?stream=north", "\n".join(lines).encode())
    assert (status, json.loads(body)) == (200, {"taken": 5, "refused": 0})
    found = look(sensors, "north", 5)
    assert (found["stream"], found["time"], found["step"]) == ("north", 4 * 3600, 3600)
    assert medians(found) == {"level": grown(40, 5), "outflow": grown(4, 5)}
    assert found["targets"]["level"]["value"] == 40
    status, body, _ = post(sensors, "/v1/readings?forecast=1", b"ts,id,inflow,outflow,level\n1,south,1,,3\n")
    assert status == 200
    (said,) = [json.loads(line) for line in body.splitlines()]
    assert (said["stream"], said["targets"]["outflow"]["value"]) == ("south", None)
    assert said["targets"]["level"]["quantiles"]["0.5"] == grown(3, 1)
    assert said["targets"]["outflow"]["quantiles"] == {}
    assert {"north", "south"} <= set(json.loads(sensors.get("/v1/forecast?match=*th")[1])["streams"])


def test_the_model_may_be_named(sensors: Running) -> None:
    row = json.dumps({"ts": 0, "id": "t1", "inflow": 1, "outflow": 2, "level": 3, "height": 4}).encode()
    assert post(sensors, "/v1/readings?model=tank", row)[0] == 200
    assert list(look(sensors, "t1", 1)["targets"]) == ["height"]
    # a value that is not there is missing
    assert post(sensors, "/v1/readings?model=tank", b'{"ts": 3600, "id": "t1", "height": 5}')[0] == 200
    assert medians(look(sensors, "t1", 2)) == {"height": grown(5, 2)}
    status, body, _ = post(sensors, "/v1/readings?model=gone", row)
    assert status == 404
    assert "forecast-online, plant, tank" in body
    status, body, _ = post(sensors, "/v1/readings?model=forecast-online&id=id&value=inflow", row)
    assert (status, json.loads(body)["taken"]) == (200, 1)
    assert look_status(sensors, "t1") == 409
    assert post(sensors, "/v1/forecast/t1?model=forecast-online", b"", "DELETE")[0] == 204
    assert look_status(sensors, "t1") == 200


def look_status(running: Running, name: str) -> int:
    return running.get(f"/v1/forecast/{name}")[0]


def test_other_columns_are_single_sensors_as_ever(sensors: Running) -> None:
    assert post(sensors, "/v1/readings", b'{"ts": 0, "id": "pump", "inflow": 1, "outflow": 2}')[0] == 200
    found = look(sensors, "pump.inflow", 1)
    assert found["value"] == 1
    assert "targets" not in found


def test_a_row_that_can_not_be_read_costs_no_other(sensors: Running) -> None:
    lines = "ts,id,inflow,outflow,level\n0,bad,1,2,3\n1,bad,1\nnever,bad,1,2,3\n3600,bad,1,2,x\n7200,bad,4,5,6\n"
    status, body, _ = post(sensors, "/v1/readings", lines.encode())
    answer = json.loads(body)
    assert (status, answer["taken"], answer["refused"]) == (400, 3, 3)  # of one row a cell
    assert look(sensors, "bad", 3)["targets"]["level"]["value"] == 6


@pytest.mark.parametrize("form", ["csv", "json"])
def test_with_a_model_absent_variables_are_missing(sensors: Running, form: str) -> None:
    body = b"ts,level,note\n0,7,x\n" if form == "csv" else b'{"ts": 0, "level": 7, "note": "x"}'
    status, text, _ = post(sensors, f"/v1/readings?model=plant&stream=part.{form}", body)
    assert (status, json.loads(text)["taken"]) == (200, 1)
    if form == "csv":
        assert "no column inflow, outflow: absent variables count as missing" in json.loads(text)["left_out"][0]
    found = look(sensors, f"part.{form}", 1)["targets"]
    assert (found["level"]["value"], found["outflow"]["value"]) == (7, None)
    assert post(sensors, f"/v1/forecast/part.{form}", b"", "DELETE")[0] == 204
    status, text, _ = post(sensors, "/v1/readings?model=plant", b"ts,note\n0,7\n" if form == "csv" else b'{"note": 7}')
    assert status == 400
    assert "level" in text


def test_columns_of_a_plant_are_not_chosen(sensors: Running) -> None:
    for query in ("value=inflow", "model=plant&value=inflow"):
        status, text, _ = post(sensors, f"/v1/readings?{query}", b"ts,inflow,outflow,level\n0,1,2,3\n")
        assert status == 400
        assert "?value= is not for plant: it takes inflow, outflow, level" in json.loads(text)["error"]


ROW = {"inflow": 1, "outflow": 2, "level": 3}


@pytest.mark.parametrize(
    ("name", "first", "second", "why"),
    [
        ("mix1", {"value": 4}, ROW, "line 2: is a row of plant, the first line is one for forecast-online: send"),
        (
            "mix2",
            ROW,
            {"value": 4},
            "line 2: is no row of plant, as the first line is, without inflow, outflow, level:",
        ),
        (
            "mix3",
            ROW,
            {"inflow": 4, "level": 1},
            "without outflow (with model=plant absent ones count as missing): send",
        ),
        (
            "mix4",
            {"inflow": 1, "height": 2},
            ROW | {"height": 1},
            "line 2: is a row of plant, the first line is one for",
        ),
        ("mix5", {"value": 4}, {"a": {"b": 1}} | ROW, "line 2: is a row of plant"),
    ],
)
def test_lines_of_two_kinds_are_not_mixed(
    sensors: Running, name: str, first: dict[str, Any], second: dict[str, Any], why: str
) -> None:
    lines = [{"ts": 0, "id": name} | first, {"ts": 3600, "id": name} | second, {"ts": 7200, "id": name} | first]
    body = "\n".join(map(json.dumps, lines)).encode()
    status, text, _ = post(sensors, "/v1/readings", body)
    answer = json.loads(text)
    assert (status, answer["taken"], answer["refused"]) == (400, 2, 1)
    assert why in answer["errors"][0]
    assert json.loads(sensors.get(f"/v1/forecast?match={name}*")[1])["streams"] == [name]
    assert look(sensors, name, 2)["time"] == 7200
    assert post(sensors, f"/v1/forecast/{name}", b"", "DELETE")[0] == 204

    async def talk() -> dict[str, Any]:
        async with websockets.connect(f"ws://127.0.0.1:{sensors.port}/v1/sensors") as socket:
            await socket.send(body.decode())
            found: dict[str, Any] = json.loads(await socket.recv())
            return found

    said = asyncio.run(talk())
    assert (said["readings"], said["refused"]) == (2, 1)
    assert why in said["errors"][0]
    assert post(sensors, f"/v1/forecast/{name}", b"", "DELETE")[0] == 204


def test_a_second_header_of_another_kind_is_refused(sensors: Running) -> None:
    status, body, _ = post(sensors, "/v1/readings", b"ts,junk,more\n0,1,1\n9,2,2\nts,inflow,height\n3600,1,2\n")
    assert status == 400
    assert "line 4 is a row of tank, the first line is one for forecast-online" in json.loads(body)["error"]
    assert json.loads(sensors.get("/v1/forecast?match=*junk*")[1])["streams"] == []


def test_a_websocket_brings_rows_and_gets_all_targets(sensors: Running) -> None:
    async def talk() -> None:
        async with websockets.connect(f"ws://127.0.0.1:{sensors.port}/v1/sensors") as socket:
            await socket.send(json.dumps({"type": "subscribe", "streams": ["ws*"]}))
            assert json.loads(await socket.recv())["type"] == "subscribed"
            await socket.send(json.dumps({"ts": 0, "id": "ws1", "inflow": 1, "outflow": 2, "level": 3}))
            found = [json.loads(await socket.recv()) for _ in range(2)]
            (said,) = [row for row in found if row["type"] == "forecast"]
            assert (said["stream"], set(said["targets"])) == ("ws1", {"level", "outflow"})

    asyncio.run(talk())


def test_every_model_is_described(sensors: Running) -> None:
    found = {model["name"]: model for model in json.loads(sensors.get("/v1/models")[1])["models"]}
    assert found["plant"]["targets"] == ["level", "outflow"]
    assert found["tank"]["variables"] == ["inflow", "height"]
    assert "targets" not in found["forecast-online"]


def test_a_killed_daemon_loses_no_row_that_was_acknowledged(models: list[Path], tmp_path: Path) -> None:
    with daemon(tmp_path, models[0], sensor_save_seconds=0.5, sensor_step=3600) as running:
        for hour in range(4):
            row = {"ts": 3600 * hour, "id": "north", "inflow": 0, "outflow": hour, "level": 0}
            assert post(running, "/v1/readings", json.dumps(row).encode())[0] == 200
        running.stop(signal.SIGKILL)
    with daemon(tmp_path, models[0], sensor_step=3600) as running:
        assert medians(look(running, "north", 4))["outflow"] == grown(3, 4)
        running.stop(signal.SIGTERM)
    with daemon(tmp_path, models[0], sensor_step=3600) as running:
        row = {"ts": 3600 * 4, "id": "north", "inflow": 0, "outflow": 9, "level": 0}
        assert post(running, "/v1/readings", json.dumps(row).encode())[0] == 200
        assert medians(look(running, "north", 5))["outflow"] == grown(9, 5)
        status, body, _ = post(running, "/v1/readings", b'{"ts": 0, "id": "a", "value": 1}')
        assert status == 404
        assert "plant takes inflow, outflow, level" in body


def test_rows_come_from_a_broker_and_forecasts_go_back(broker: Broker, models: list[Path], tmp_path: Path) -> None:
    async def talk() -> list[tuple[str, dict[str, Any]]]:
        found = []
        async with asyncio.timeout(60), aiomqtt.Client("127.0.0.1", broker.port) as client:
            await client.subscribe("streamer/#")
            await client.subscribe("homeassistant/#")
            await client.publish("plants/north", json.dumps({"t": 0, "inflow": 1, "outflow": 2, "level": 3}), qos=1)
            await client.publish("plants/north", json.dumps({"t": 0, "nothing": "here"}), qos=1)
            await client.publish("tanks/a", json.dumps({"height": 7}), qos=1)
            async for message in client.messages:
                topic = message.topic.value
                if not topic.startswith("streamer/$"):  # of Home Assistant, who is looked at elsewhere
                    found.append((topic, json.loads(message.payload)))
                topics = {topic for topic, _ in found}
                entities = sum(topic.startswith("homeassistant/sensor/") for topic in topics)
                if {"streamer/plants/north", "streamer/tanks/a"} <= topics and entities == 3:
                    return found
        raise AssertionError

    topics = "plants/+ time=t,tanks/+ model=tank"
    given = broker_settings(broker, mqtt_topics=topics, mqtt_discovery="homeassistant")
    with daemon(tmp_path / "d", *models, **given) as running:
        connected(running)
        found = dict(asyncio.run(talk()))
        assert medians(found["streamer/plants/north"]) == {"level": grown(3, 1), "outflow": grown(2, 1)}
        assert medians(found["streamer/tanks/a"]) == {"height": grown(7, 1)}
        # a message is counted once it is acknowledged, and its forecast may be there before
        until(lambda: running.metrics()['streamer_mqtt_messages_total{outcome="taken"}'] == 2)
        assert running.metrics()['streamer_mqtt_messages_total{outcome="columns"}'] == 1
