"""What is announced to Home Assistant is what its discovery takes, and its templates read what is published."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Annotated, Any, Literal

import jinja2
import numpy as np
import pytest
from ha_mqtt_discoverable.sensors import BinarySensorInfo, SensorInfo
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from streamer.sensors.columns import Forecasts
from streamer.sources.home_assistant import announcements, curve, curve_topic, daemon_announcement
from streamer.sources.mqtt_topics import MqttOptions, stream_topic
from tests.serve.test_mqtt_topics import told

OPTIONS = MqttOptions(prefix="home/forecasts", discovery="homeassistant")
NAMES = ["pump.temperature", "a", "Küche 1/Fühler.Wärme °C", "x+#", ".", "a.", "$status", "会議室.温度", "x" * 900]
#: Home Assistant's own pattern of discovery topics (components/mqtt/discovery.py): an object's id has these characters.
TOPIC = re.compile(r"homeassistant/(?P<component>\w+)/[a-zA-Z0-9_-]+/config")


def _filter(topic: str) -> str:
    assert topic
    assert len(topic.encode()) <= 65535
    assert not set(topic) & set("+#\0"), "a topic, no pattern"
    return topic


def _template(text: str) -> str:
    jinja2.Environment().parse(text)
    return text


Topic = Annotated[str, AfterValidator(_filter)]
Template = Annotated[str, AfterValidator(_template)]


class _Taken(BaseModel):
    """Fields and values as Home Assistant's schemas of discovery have them (components/mqtt/schemas.py, sensor.py,
    binary_sensor.py of home-assistant/core; https://www.home-assistant.io/integrations/sensor.mqtt/). What they do not
    know they refuse, and so does this."""

    model_config = ConfigDict(extra="forbid", strict=True)


class HaDevice(_Taken):
    identifiers: list[str] = []
    connections: list[tuple[str, str]] = []
    name: str | None = None
    manufacturer: str | None = None
    model: str | None = None
    sw_version: str | None = None
    via_device: str | None = None

    @model_validator(mode="after")
    def _has_one(self) -> HaDevice:
        assert self.identifiers or self.connections
        return self


class HaOrigin(_Taken):
    name: str
    sw_version: str | None = None
    support_url: Annotated[str, Field(pattern="^https?://")] | None = None


class HaEntity(_Taken):
    name: str | None = None
    unique_id: str
    state_topic: Topic
    value_template: Template | None = None
    availability_topic: Topic | None = None
    payload_available: str = "online"
    payload_not_available: str = "offline"
    json_attributes_topic: Topic | None = None
    entity_category: Literal["config", "diagnostic"] | None = None
    device: HaDevice
    origin: HaOrigin


class HaSensor(HaEntity):
    state_class: Literal["measurement", "measurement_angle", "total", "total_increasing"] | None = None
    unit_of_measurement: str | None = None


class HaBinarySensor(HaEntity):
    device_class: Literal["problem", "connectivity"] | None = None
    payload_on: str = "ON"
    payload_off: str = "OFF"


def announced(stream: str, target: str = "", options: MqttOptions = OPTIONS) -> tuple[dict[str, Any], dict[str, Any]]:
    (_, sensor), (_, anomaly) = announcements(options, stream, "0.5", target)
    return sensor, anomaly


@pytest.mark.parametrize("stream", NAMES)
@pytest.mark.parametrize("target", ["", "outflow", "o\"u't {{ 1 }} °"])
def test_the_discovery_schema_takes_it(stream: str, target: str) -> None:
    kinds = {"sensor": (HaSensor, SensorInfo), "binary_sensor": (HaBinarySensor, BinarySensorInfo)}
    for topic, config in (*announcements(OPTIONS, stream, "0.5", target), daemon_announcement(OPTIONS)):
        found = TOPIC.fullmatch(topic)
        assert found, topic
        for kind in kinds[found["component"]]:
            kind.model_validate(json.loads(json.dumps(config)))


def shown(template: str, payload: dict[str, Any]) -> str:
    """As Home Assistant renders it."""
    return jinja2.Environment().from_string(template).render(value_json=payload)


@pytest.mark.parametrize(("anomaly", "state"), [(0.0005, "ON"), (0.01, "OFF"), (None, "None")])
def test_the_templates_read_what_is_published(anomaly: float | None, state: str) -> None:
    payload = told(**{"pump.temperature": [1.0, 20.5, 30.0]}).to_dict(0) | {"anomaly": anomaly}
    sensor, binary = announced("pump.temperature")
    assert shown(sensor["value_template"], payload) == "20.5"
    assert shown(binary["value_template"], payload) == state
    for config in (sensor, binary):
        assert config["state_topic"] == stream_topic("home/forecasts", "pump.temperature")


def test_the_templates_of_a_target() -> None:
    name = "out\"flow '°"
    payload = {"targets": {name: {"quantiles": {"0.5": [7.5]}, "anomaly": 0.0001}}}
    sensor, binary = announced("plants/north", name)
    assert shown(sensor["value_template"], payload) == "7.5"
    assert shown(binary["value_template"], payload) == "ON"


def test_the_templates_of_a_target_that_is_not_known_yet_and_of_one_with_any_name() -> None:
    name = "\N{HOUSE BUILDING} \N{THERMOMETER}"
    sensor, binary = announced("plants/north", name)
    for said, state in (
        ({"quantiles": {"0.5": [7.5]}, "anomaly": 0.5}, "7.5"),
        ({"quantiles": {}, "anomaly": None}, "None"),
    ):
        payload = {"targets": {name: said}}
        assert shown(sensor["value_template"], payload) == state
        assert shown(binary["value_template"], payload) == ("None" if state == "None" else "OFF")


def test_unique_ids_are_unique_and_stay() -> None:
    every = [config for stream in NAMES for target in ("", "a", "b") for config in announced(stream, target)]
    ids = [config["unique_id"] for config in every]
    assert len(set(ids)) == len(ids)
    assert ids == [c["unique_id"] for stream in NAMES for target in ("", "a", "b") for c in announced(stream, target)]
    assert re.fullmatch("home_forecasts_pump_temperature_[0-9a-f]{8}", announced("pump.temperature")[0]["unique_id"])
    other = MqttOptions(prefix="elsewhere", discovery="homeassistant")
    assert announced("a", options=other)[0]["unique_id"] not in ids


def test_one_device_for_each_group_and_all_belong_to_the_daemons() -> None:
    warm, wet = announced("pump.temperature")[0], announced("pump.humidity")[0]
    assert warm["device"] == wet["device"]
    assert (warm["device"]["name"], warm["name"], wet["name"]) == ("pump", "temperature forecast", "humidity forecast")
    assert announced("pump.temperature")[1]["name"] == "temperature anomaly"
    assert announced("plain")[0]["device"]["name"] == "plain"
    assert announced("plain")[0]["name"] == "forecast"
    assert announced("plants/north", "level")[0]["device"] == announced("plants/north", "outflow")[0]["device"]
    _, own = daemon_announcement(OPTIONS)
    assert [warm["device"]["via_device"]] == own["device"]["identifiers"]
    assert own["state_topic"] == warm["availability_topic"]


def forecasts(steps: int, step: float = 60.0) -> Forecasts:
    made = told(a=[1.25, *np.linspace(2.123456, 3.123456, steps)])
    return dataclasses.replace(made, times=np.array([1_700_000_000.0]), steps=np.array([step], np.float64))


def test_the_whole_curve_with_its_times() -> None:
    ((target, text),) = curve(forecasts(48), 0, 16000)
    said = json.loads(text)
    assert target == ""
    assert (said["from"], said["value"], said["left_out"]) == ("2023-11-14T22:13:20Z", 1.25, 0)
    assert (said["times"][0], said["times"][-1], len(said["times"])) == (
        "2023-11-14T22:14:20Z",
        "2023-11-14T23:01:20Z",
        48,
    )
    assert {level: len(values) for level, values in said["quantiles"].items()} == {"0.1": 48, "0.5": 48, "0.9": 48}


@pytest.mark.parametrize("most", [300, 1000, 16000])
def test_a_curve_is_bounded_and_says_what_is_left_out(most: int) -> None:
    ((_, text),) = curve(forecasts(5000), 0, most)
    said = json.loads(text)
    kept = len(said["quantiles"]["0.5"])
    assert len(text) <= most
    assert len(said["times"]) == kept
    assert said["left_out"] == 5000 - kept
    assert kept > most / 200


def test_a_curve_without_a_known_step_has_no_times() -> None:
    ((_, text),) = curve(forecasts(3, np.nan), 0, 16000)
    assert json.loads(text)["times"] == []


def test_what_is_unknown_or_endless_has_no_curve() -> None:
    one = forecasts(3)
    assert list(curve(dataclasses.replace(one, known=np.array([False])), 0, 16000)) == []
    assert list(curve(dataclasses.replace(one, quantiles=one.quantiles * np.inf), 0, 16000)) == []


def test_the_daemons_own_topics_are_no_streams() -> None:
    for name in ("$status", "$curve/a", "$"):
        assert not stream_topic("p", name).startswith("p/$")
    assert curve_topic("p", "a+b", "c#").startswith("p/$curve/a_b.c_")
