"""MQTT: what a line of ``mqtt_topics`` makes of a payload."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from streamer.sources.mqtt_topics import MalformedError, Subscription
from tests.inputs.cases import Case, Result, hold

ORDER = 6
ABOUT = {
    "MQTT": "A line of the setting `mqtt_topics` and a payload. Code 0: all of it was read, 1: a part, 2: nothing. What"
    " can't be read is counted by reason (`streamer_mqtt_messages_total{outcome}`, a part: `partly`) and logged once"
    " for each topic.",
}
Values = dict[str, float | None]


@dataclass(frozen=True)
class Message:
    case: Case
    line: str
    topic: str
    payload: bytes
    values: Values


def message(
    name: str, line: str, topic: str, payload: str | bytes, values: Values, says: str = "", missing: str = ""
) -> Message:
    raw = payload.encode() if isinstance(payload, str) else payload
    code = 0 if not says else 1 if values else 2
    outcome = ", ".join(f"{path}: {'missing' if v is None else f'{v:g}'}" for path, v in values.items()) or "refused"
    command = f"{line}  ←  {topic} {raw.decode('utf-8', 'replace')}"
    return Message(Case(name, "MQTT", command, outcome, exit=code, says=says), line, topic, raw, values)


MESSAGES = (
    message("a number", "sensors/+/t", "sensors/a/t", "20.4", {"sensors/a/t": 20.4}),
    message("a decimal comma and a unit", "t/#", "t/a", "20,4 °C", {"t/a": 20.4}),
    message("unavailable", "t", "t", "unavailable", {"t": None}),
    message("a switch", "t", "t", "ON", {"t": 1}),
    message("a word", "t", "t", "warm", {}, "the payload: 'warm' is no number"),
    message("a number for no value", "t missing=-127 missing=85", "t", "-127.0", {"t": None}),
    message("a topic with spaces", '"living room/+"', "living room/t", "20", {"living room/t": 20}),
    message("a path with spaces", 't "air temp"', "t", '{"air temp": 20}', {"t.air temp": 20}),
    message(
        "Tasmota, a list",
        "tele/+/SENSOR time=Time ENERGY.Power",
        "tele/x/SENSOR",
        '{"Time":"2024-05-01T00:00:00","ENERGY":{"Power":[12,13]}}',
        {"tele/x/SENSOR.ENERGY.Power.0": 12, "tele/x/SENSOR.ENERGY.Power.1": 13},
    ),
    message("one bad path", "t a b", "t", '{"a":"err","b":2}', {"t.b": 2}, "a: 'err' is no number"),
    message(
        "numbers as words, at paths",
        "t a b c",
        "t",
        '{"a":"20.4","b":null,"c":"NaN"}',
        {"t.a": 20.4, "t.b": None, "t.c": None},
    ),
    message("a path that is not there", "t a b", "t", '{"b":2}', {"t.b": 2}),
    message("no path that is there", "t a b", "t", '{"c":2}', {}, "has no a and no b"),
    message("1,234", "t", "t", "1,234", {}, "the payload: '1,234' is 1.234 or 1234"),
    message("not JSON", "t a", "t", '{"a":', {}, "is not JSON: Expecting value: line 1 column 6 (char 5)"),
    message("not UTF-8", "t", "t", b"\xff\xfe", {}, "is not UTF-8"),
)
CASES = tuple(each.case for each in MESSAGES)


@pytest.mark.parametrize("each", MESSAGES, ids=lambda each: each.case.name)
def test_payload(each: Message) -> None:
    subscription = Subscription.parse(each.line)
    assert subscription.matches(each.topic)
    faults: list[MalformedError] = []
    try:
        _, found = subscription.read(each.topic, each.payload, {"single": ()}, faults)
    except MalformedError as error:
        found, faults = [], [error]
    assert isinstance(found, list)
    assert {reading.stream: reading.value for reading in found} == each.values
    code = 0 if not faults else 1 if found else 2
    hold(each.case, Result(code, "", "\n".join(map(str, faults))))


def test_what_stands_for_no_value_everywhere_does_so_in_every_topic() -> None:
    line = Subscription.parse("t missing=85", ("-999",))
    assert [line.readings("t", payload)[0].value for payload in (b"85", b"-999", b"20")] == [None, None, 20]


@pytest.mark.parametrize("line", ['"a b', 'a "b', '"a/b+"'])
def test_a_line_with_a_bad_quote_or_topic_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"never closed|whole level"):
        Subscription.parse(line)
