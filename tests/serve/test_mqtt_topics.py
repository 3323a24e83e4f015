import dataclasses
import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.sensors.columns import Forecasts, Reading, ReadingBatch, Row
from streamer.sources.mqtt import NUMBER
from streamer.sources.mqtt_topics import (
    MAX_NUMBERS,
    MalformedError,
    MqttOptions,
    Subscription,
    overlap,
    sentinels_of,
    stream_topic,
)

LEVELS = st.sampled_from(["a", "b", "", "$SYS"])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)
PATTERNS = (
    st.tuples(st.lists(LEVELS | st.just("+"), min_size=0, max_size=4), st.booleans())
    .map(lambda drawn: "/".join(drawn[0] + ["#"] * drawn[1]))
    .filter(bool)
)
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


def told(**streams: list[float]) -> Forecasts:
    """A reading of each stream, then the median of what is forecast."""
    rows = len(streams)
    values = np.array(list(streams.values()))
    given: dict[str, Any] = {
        "names": list(streams),
        "times": np.arange(rows, dtype=np.float64),
        "values": values[:, 0],
        "levels": ["0.1", "0.5", "0.9"],
        "quantiles": np.stack([values[:, 1:] - 1, values[:, 1:], values[:, 1:] + 1], -1).astype(np.float32),
        "known": np.ones(rows, bool),
        "targets": (),
    }
    others = {
        field.name: np.zeros(rows, np.float32) for field in dataclasses.fields(Forecasts) if field.name not in given
    }
    return Forecasts(**given, **others)


def read(line: str, topic: str, payload: str | bytes) -> list[tuple[str, float | None, float | None]]:
    raw = payload if isinstance(payload, bytes) else payload.encode()
    return [(r.stream, r.time, r.value) for r in Subscription.parse(line).readings(topic, raw)]


def reason(line: str, topic: str, payload: str | bytes) -> str:
    with pytest.raises(MalformedError) as caught:
        read(line, topic, payload)
    return caught.value.reason


def matched(pattern: str, topic: str) -> bool:
    """The standard's words (4.7) as a regular expression."""
    if pattern[0] in "+#" and topic[:1] == "$":
        return False
    written = "/".join({"+": "[^/]*", "#": ".*"}.get(level, re.escape(level)) for level in pattern.split("/"))
    if written.endswith("/.*"):
        written = written[:-3] + "(/.*)?"
    return re.fullmatch(written, topic) is not None


# -- which topics ------------------------------------------------------------------------------------------------------


@given(PATTERNS, TOPICS)
def test_patterns_match_as_the_standard_says(pattern: str, topic: str) -> None:
    assert Subscription.parse(pattern).matches(topic) == matched(pattern, topic)


@given(PATTERNS, PATTERNS)
def test_patterns_overlap_where_a_topic_matches_both(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one)
    # a topic that both match is found by filling in one pattern's wildcards with what the other wants
    a, b = one.split("/"), other.split("/")
    candidates = set()
    for length in range(1, 7):
        levels = []
        for at in range(length):
            wanted = [p[at] for p in (a, b) if at < len(p) and p[at] not in ("+", "#")]
            levels.append(wanted[0] if wanted else "a")
        candidates.add("/".join(levels))
    assert overlap(one, other) == any(matched(one, t) and matched(other, t) for t in candidates)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "has no topic pattern"),
        ("a/\0", "has no topic pattern"),
        ("a/b+/c", "whole level"),
        ("a/#/c", "is the last"),
        ("a/b#", "is the last"),
        ("$share/group/a", "shared"),
        ("a x..y", "keys with dots"),
        ("a time=", "keys with dots"),
        ("a when=x", "only options are time=PATH"),
        ("a model=x y", "leave out others"),
        ("a model=", "leave out others"),
        ("a x x", "twice"),
        ("a time=x time=y", "twice"),
    ],
)
def test_a_bad_line_is_refused_with_its_reason(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        Subscription.parse(line)
    assert repr(line[:200]) in str(caught.value)


@pytest.mark.parametrize("pattern", ["#", "+/+/x", "home/streamer/#", "home/+/pump", "home/#", "home/streamer"])
def test_our_own_output_is_not_read(pattern: str) -> None:
    with pytest.raises(ValueError, match="our own forecasts, which go to home/streamer/"):
        MqttOptions((Subscription.parse(pattern),), prefix="home/streamer")
    MqttOptions((Subscription.parse("home/pump/#"), Subscription.parse("+/x")), prefix="home/streamer")


def test_lines_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="make them one"):
        MqttOptions((Subscription.parse("a/+"), Subscription.parse("a/b x")))
    MqttOptions(
        (Subscription.parse("a/+/c"), Subscription.parse("a/+/d"), Subscription.parse("zigbee2mqtt/+ temperature"))
    )


@pytest.mark.parametrize("prefix", ["", "a/", "/a", "a/+", "a#", "$SYS"])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="not a topic to publish to"):
        MqttOptions(prefix=prefix)
    with pytest.raises(ValueError, match="not a topic to publish to"):
        MqttOptions(discovery=prefix)


@pytest.mark.parametrize("bad", [{"max_unacknowledged": 0}, {"max_unacknowledged": 65536}, {"client_id": ""}])
def test_what_the_protocol_does_not_know_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        MqttOptions(**bad)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(MqttOptions(password="secret"))


# -- what a payload says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "value"),
    [
        ("76.2", 76.2),
        (" -1e3\n", -1000.0),
        ("ON", 1.0),
        ("off", 0.0),
        ("true", 1.0),
        ("False", 0.0),
        ("", None),
        ("nan", None),
        ("unknown", None),
        ("unavailable", None),
        ("None", None),
        ("1e400", None),
        ("-1e30", None),
    ],
)
def test_a_bare_payload(payload: str, value: float | None) -> None:
    topic = "sensors/line1/pump/temperature"
    assert read("sensors/+/+/temperature", topic, payload) == [(topic, None, value)]


def test_named_paths() -> None:
    tasmota = '{"Time":"2022-03-28T19:15:01","ENERGY":{"Power":12,"Period":0},"TempUnit":"C"}'
    topic = "tele/x/SENSOR"
    assert read("tele/+/SENSOR ENERGY.Power", topic, tasmota) == [("tele/x/SENSOR.ENERGY.Power", None, 12.0)]
    timed = read("tele/+/SENSOR time=Time ENERGY.Power", topic, tasmota)
    assert timed == [("tele/x/SENSOR.ENERGY.Power", 1648494901.0, 12.0)]
    zigbee = '{"temperature":21.3,"linkquality":120}'
    assert read("z/+ temperature humidity", "z/hall", zigbee) == [("z/hall.temperature", None, 21.3)]


@pytest.mark.parametrize(
    ("said", "value"), [("null", None), ('"unavailable"', None), ("true", 1.0), ('"OFF"', 0.0), ('"2.5"', 2.5)]
)
def test_values_at_paths(said: str, value: float | None) -> None:
    assert read("t a.1", "t", f'{{"a":[0,{said}]}}') == [("t.a.1", None, value)]


def test_without_paths_every_number_at_any_depth() -> None:
    payload = '{"a":1,"b":{"c":[2,{"d":3}],"on":true,"text":"4"},"n":null,"huge":1e999}'
    found = [("t.a", None, 1.0), ("t.b.c.0", None, 2.0), ("t.b.c.1.d", None, 3.0), ("t.huge", None, None)]
    assert read("t", "t", payload) == found
    assert read("t time=a", "t", payload) == [(name, 1.0, value) for name, _, value in found[1:]]


def test_a_sensor_that_is_unavailable_is_missing_at_every_path() -> None:
    assert read("t a b.c", "t", "unavailable") == [("t.a", None, None), ("t.b.c", None, None)]


def test_an_integer_beyond_every_float_is_missing() -> None:
    assert read("t", "t", '{"a":1' + "0" * 400 + "}") == [("t.a", None, None)]


@pytest.mark.parametrize(
    ("line", "payload", "why"),
    [
        ("t", b"\xff\xfe", "encoding"),
        ("t", "warm", "number"),
        ("t", "1_000", "number"),
        ("t a", "12", "json"),
        ("t a", '{"a":', "json"),
        ("t", "[" * 100_000, "json"),
        ("t a", '{"a":{}}', "number"),
        ("t a", '{"a":"warm"}', "number"),
        ("t a", '{"b":1}', "path"),
        ("t", "{}", "path"),
        ("t time=a", '{"a":1}', "path"),
        ("t time=a b", '{"b":1}', "time"),
        ("t time=a b", '{"a":"soon","b":1}', "time"),
        ("t time=a b", '{"a":true,"b":1}', "time"),
        ("t time=a b", '{"a":NaN,"b":1}', "time"),
        ("t time=a", "12", "json"),
        ("t", json.dumps(dict.fromkeys(map(str, range(MAX_NUMBERS + 1)), 1)), "many"),
        ("t", json.dumps({"k" * 200: 1}), "name"),
        ("t", '{"\\ud800": 1}', "name"),
        ("t", '{"a' * 150 + '":1' + "}" * 150, "json"),
        ("t", '{"ab":' * 150 + "1" + "}" * 150, "name"),
    ],
)
def test_a_malformed_payload_has_a_reason(line: str, payload: str | bytes, why: str) -> None:
    assert reason(line, "t", payload) == why


def test_as_many_numbers_as_may_be() -> None:
    assert len(read("t", "t", json.dumps([1] * MAX_NUMBERS))) == MAX_NUMBERS


@given(st.binary(max_size=60) | TREES.map(lambda tree: json.dumps(tree).encode()), st.sampled_from(["t", "t a b.0"]))
def test_whatever_comes_is_read_or_malformed(payload: bytes, line: str) -> None:
    try:
        readings = Subscription.parse(line).readings("t", payload)
    except MalformedError as error:
        said = error.reason
    else:
        said = "read"
        assert readings
        assert all(r.value is None or abs(r.value) < 1e30 for r in readings)
        assert all(r.stream.isprintable() for r in readings)
    assert said in {"read", "encoding", "json", "many", "name", "number", "path", "time"}


# -- what goes out -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=20))
def test_a_stream_has_a_topic_that_every_broker_takes(stream: str) -> None:
    topic = stream_topic("streamer", stream)
    assert topic.startswith("streamer/")
    assert not set(topic) & set("+#\0")
    topic.encode()


MODELS = {"universal": (), "plant": ("inflow", "outflow"), "wide": ("inflow", "outflow", "tank.level")}


def row_of(line: str, payload: str, models: dict[str, tuple[str, ...]] = MODELS) -> tuple[str, Any]:
    return Subscription.parse(line).read("plants/north", payload.encode(), models)


def test_a_payload_with_all_variables_of_a_model_is_a_row_of_it() -> None:
    said = '{"ts": 60, "inflow": 1.5, "outflow": null, "other": "x"}'
    assert row_of("plants/+ time=ts", said) == ("plant", Row(60.0, {"inflow": 1.5, "outflow": None}, "plants/north"))
    nested = '{"inflow": "on", "outflow": 2, "tank": {"level": "unavailable"}}'
    model, row = row_of("plants/+", nested)
    assert (model, row.values) == ("wide", {"inflow": 1.0, "outflow": 2.0, "tank.level": None})


def test_a_model_that_is_named_takes_what_there_is() -> None:
    assert row_of("plants/+ model=wide", '{"outflow": 2}') == ("wide", Row(None, {"outflow": 2.0}, "plants/north"))
    assert row_of("plants/+ model=universal", "7") == ("universal", [Reading("plants/north", None, 7.0)])


def test_what_is_not_a_row_is_of_single_sensors() -> None:
    model, found = row_of("plants/+", '{"inflow": 1}')
    assert (model, [reading.stream for reading in found]) == ("universal", ["plants/north.inflow"])
    model, found = row_of("plants/+ inflow", '{"inflow": 1, "outflow": 2}')
    assert (model, [reading.stream for reading in found]) == ("universal", ["plants/north.inflow"])


@pytest.mark.parametrize(
    ("line", "payload", "models", "why"),
    [
        ("plants/+ model=plant", '{"x": 1}', MODELS, "path"),
        ("plants/+ model=plant", "5", MODELS, "path"),
        ("plants/+ model=plant", '{"inflow": "much"}', MODELS, "number"),
        ("plants/+ model=gone", '{"inflow": 1}', MODELS, "columns"),
        ("plants/+", '{"inflow": 1}', {"plant": ("inflow", "outflow")}, "columns"),
        ("plants/+", "5", {"plant": ("inflow", "outflow")}, "columns"),
        ("plants/+", '{"a": 1, "b": 2}', {"one": ("a", "b"), "two": ("b", "a")}, "columns"),
    ],
)
def test_a_row_that_fits_no_model_says_why(line: str, payload: str, models: Any, why: str) -> None:
    with pytest.raises(MalformedError) as caught:
        row_of(line, payload, models)
    assert caught.value.reason == why


@given(st.from_regex(NUMBER, fullmatch=True))
def test_a_payload_of_one_number_is_read_as_it_would_be_with_care(payload: bytes) -> None:
    none = ("-127", "1e3")
    subscription = Subscription.parse("t/#", none)
    assert subscription.numbers({"sensors": ()}) == "sensors"
    value = None if float(payload) in sentinels_of(none).numbers else float(payload)
    (reading,) = subscription.readings("t/a", payload)
    careful, quick = (ReadingBatch.made(["t/a"], [None], [each]).values for each in (reading.value, value))
    np.testing.assert_array_equal(careful, quick)


@pytest.mark.parametrize("line", ["t/# a", "t/# time=at", "t/# model=sensors"])
def test_other_payloads_are_always_read_with_care(line: str) -> None:
    assert Subscription.parse(line).numbers({"sensors": ()}) is None
    assert Subscription.parse("t/#").numbers({"tank": ("level",)}) is None
