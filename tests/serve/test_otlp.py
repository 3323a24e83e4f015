"""OTLP: gauges and sums, as protobuf and as JSON."""

from __future__ import annotations

import json
import math
import struct
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.readings.otlp import answer, parse
from streamer.serve.readings.parsed import BodyError
from tests.serve.senders import attribute, double, field, integer, otlp, refused, varint

JSON, PROTO = "application/json; charset=utf-8", "application/x-protobuf"
TIME = 1630424257000000000


def document(metrics: list[dict[str, Any]]) -> bytes:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "pump"}}]}
    return json.dumps(
        {"resourceMetrics": [{"resource": resource, "scopeMetrics": [{"scope": {}, "metrics": metrics}]}]}
    ).encode()


def point(**more: Any) -> dict[str, Any]:
    return {"timeUnixNano": str(TIME), "attributes": [], **more}


def test_json() -> None:
    found = parse(
        document(
            [
                {"name": "temp", "unit": "Cel", "gauge": {"dataPoints": [point(asDouble=73.9), point(asInt="7")]}},
                {"name": "n", "sum": {"dataPoints": [point(asDouble=1, timeUnixNano=0), point(asDouble=2, flags=1)]}},
            ]
        ),
        JSON,
    )
    assert list(found.batch.names) == ['temp{service.name="pump"}'] * 2 + ['n{service.name="pump"}'] * 2
    assert found.batch.times.tolist()[:2] == [1630424257.0] * 2
    assert math.isnan(found.batch.times[2])
    assert found.batch.values.tolist()[:3] == [73.9, 7.0, 1.0]
    assert math.isnan(found.batch.values[3])
    assert found.skipped == {}


def test_protobuf_says_the_same() -> None:
    at = varint(3 << 3 | 1) + struct.pack("<Q", TIME)
    points = [at + double(4, 73.9) + attribute("floor", "2", 7), at + varint(6 << 3 | 1) + struct.pack("<q", -7)]
    gauge = field(2, field(1, b"temp") + field(5, b"".join(field(1, one) for one in points)))
    gone = field(2, field(1, b"n") + field(7, field(1, at + double(4, 1.0) + integer(8, 1)) + integer(2, 2)))
    histogram = field(2, field(1, b"h") + field(9, field(1, b"x") * 3))
    found = parse(otlp(gauge + gone + histogram, attribute("service.name", "pump", 1)), PROTO)
    assert list(found.batch.names) == [
        'temp{floor="2",service.name="pump"}',
        'temp{service.name="pump"}',
        'n{service.name="pump"}',
    ]
    assert found.batch.times.tolist() == [1630424257.0] * 3
    assert found.batch.values.tolist()[:2] == [73.9, -7.0]
    assert math.isnan(found.batch.values[2])
    assert found.skipped == {"histogram": 3}


@pytest.mark.parametrize(
    "bad",
    [
        point(),
        point(asInt="seven"),
        point(asDouble="x"),
        point(asDouble=1, timeUnixNano="soon"),
        point(asDouble=1, attributes=[{"key": "a", "value": {"stringValue": "\x07"}}]),
        point(asDouble=1, attributes=[{"key": "a", "value": {"stringValue": "x" * 5000}}]),
        point(asInt=10**400),
        point(asInt="1_0"),
        point(asInt=1.9),
        point(asDouble=True),
        point(asDouble=[]),
        point(asDouble=None),
        point(asDouble=1, flags="x"),
        point(asDouble=1, timeUnixNano=10**400),
        point(asDouble=1, timeUnixNano="9" * 400),
        point(asDouble=1, timeUnixNano=10**300),
        point(asDouble=1, timeUnixNano=-(10**22)),
        point(asDouble=1, timeUnixNano=[]),
    ],
)
def test_a_bad_point_costs_no_other(bad: dict[str, Any]) -> None:
    found = parse(document([{"name": "a", "gauge": {"dataPoints": [bad, point(asDouble=1)]}}]), JSON)
    assert len(found.batch) == 1
    assert found.skipped == {"malformed": 1}


@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80"])
def test_what_is_not_utf_8_is_no_name(bad: bytes) -> None:
    number, other = field(1, double(4, 1.0)), field(1, b"x")
    metrics = field(2, field(1, bad) + field(5, number)) + field(2, field(1, b"good") + field(5, number))
    found = parse(otlp(metrics + field(2, field(1, bad) + field(9, other))), PROTO)
    assert list(found.batch.names) == ["good"]
    assert found.skipped == {"malformed": 1, "histogram": 1}
    answer(PROTO, 2, "; ".join(found.faults))


@pytest.mark.parametrize(
    "resource", [attribute("a", "x" * 2**22, 1), b"".join(attribute(str(n), "x", 1) for n in range(20_000))]
)
def test_what_a_resource_says_once_is_not_copied_for_each_point(resource: bytes) -> None:
    """Copying it would not come back from this."""
    points = field(1, double(4, 1.0)) * 20_000
    found = parse(otlp(field(2, field(1, b"a") + field(5, points)), resource), PROTO)
    assert found.skipped == {"malformed": 20_000}
    long = parse(otlp(field(2, field(1, b"a" * 2**22) + field(5, points))), PROTO)
    assert long.skipped == {"malformed": 20_000}


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b'{"resourceMetrics": 5}', JSON, 400),
        (b'{"resourceMetrics": [5]}', JSON, 400),
        (b'{"resourceMetrics": [{"resource": null}]}', JSON, 400),
        (document([{"name": "a", "gauge": []}]), JSON, 400),
        (b"\xff\xff", PROTO, 400),
        (b"", "text/plain", 415),
    ],
)
def test_what_is_no_request_is_refused(body: bytes, kind: str, status: int) -> None:
    with pytest.raises(BodyError) as caught:
        parse(body, kind)
    assert caught.value.status == status


def test_the_answer_is_in_the_language_of_the_request() -> None:
    assert answer(JSON, 0, "") == (b'{"partialSuccess": {}}', "application/json")
    assert json.loads(answer(JSON, 3, "why")[0])["partialSuccess"] == {"rejectedDataPoints": "3", "errorMessage": "why"}
    assert answer(PROTO, 0, "") == (b"", PROTO)
    assert answer(PROTO, 3, "why") == (field(1, integer(1, 3) + field(2, b"why")), PROTO)


@given(st.binary(max_size=100))
def test_garbage_is_refused(data: bytes) -> None:
    for kind in (JSON, PROTO):
        assert refused(partial(parse, data, kind)) in (0, 400)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["resourceMetrics", "scopeMetrics", "metrics", "gauge", "dataPoints", "asDouble", "name"]),
            inner,
            max_size=3,
        ),
    ),
)


@given(VALUES)
def test_json_of_another_shape_is_refused(value: Any) -> None:
    for found in (value, {"resourceMetrics": [{"scopeMetrics": [{"metrics": value}]}]}):
        assert refused(partial(parse, json.dumps(found).encode(), JSON)) in (0, 400)
