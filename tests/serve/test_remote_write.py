"""Remote write: what Prometheus means, and what must never do harm."""

from __future__ import annotations

import asyncio
import contextlib
import math
import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from streamer.metrics import Metrics
from streamer.serve.bounds import Bounds, RequestMemory
from streamer.serve.readings import remote_write
from streamer.serve.readings.parsed import EACH, KEPT_SECONDS, PART, READING, TOGETHER, BodyError, Names, Parsed
from streamer.serve.readings.remote_write import negotiate, unpack
from tests.serve.senders import field, integer, refused, request_v1, request_v2, sample, snappy

LIMIT = 2**20
V2 = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
(STALE,) = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))
UP = {"__name__": "up", "job": "node", "instance": "a:9100"}


def parse(body: bytes, version: int) -> Parsed:
    kind = "application/x-protobuf" if version == 1 else V2
    return negotiate({"content-type": kind, "content-encoding": "snappy"})(snappy(body), LIMIT)


def both(*series: tuple, extra: bytes = b"") -> list[Parsed]:
    return [parse(request_v1(*series, extra=extra), 1), parse(request_v2(*series, extra=extra), 2)]


def test_samples_are_readings_and_labels_their_names() -> None:
    for _ in range(2):  # the second time by names that are remembered
        up = (UP, [(1.0, 1_630_424_257_500), (0.5, 1_630_424_272_500)])
        for found in both(up, ({"__name__": "load"}, [(2, -5)])):
            assert list(found.batch.names) == ['up{instance="a:9100",job="node"}'] * 2 + ["load"]
            assert found.batch.times.tolist() == [1_630_424_257.5, 1_630_424_272.5, -0.005]
            assert found.batch.values.tolist() == [1.0, 0.5, 2.0]
            assert (found.skipped, found.faults) == ({}, [])


def test_stale_markers_are_no_readings_and_other_nans_are_missing_ones() -> None:
    for found in both((UP, [(STALE, 1000), (math.nan, 2000), (math.inf, 3000), (7.0, 4000)])):
        assert found.batch.times.tolist() == [2.0, 3.0, 4.0]
        assert [math.isnan(value) for value in found.batch.values] == [True, True, False]
        assert (found.skipped, found.faults) == ({"stale": 1}, [])


def test_histograms_are_counted_and_what_is_unknown_is_passed_over() -> None:
    extra = field(4, b"abc") + field(3, b"abc") + integer(6, 12) + field(99, b"new")
    one, two = both((UP, [(1.0, 1)]), extra=extra)
    assert one.skipped == two.skipped == {"histogram": 1}
    assert len(one.batch) == len(two.batch) == 1


@pytest.mark.parametrize(
    "labels",
    [
        {"job": "node"},
        {"__name__": ""},
        {"__name__": "a", "job": "x" * 10_000_000},
        {"__name__": "a", "job": "x" * 1500},
        {"__name__": "a", "job": "\x1b[2J"},
        {},
    ],
)
def test_a_series_without_a_usable_name_costs_its_own_samples_only(labels: dict[str, str]) -> None:
    limit = 2**25
    for kind, make in (("application/x-protobuf", request_v1), (V2, request_v2)):
        body = snappy(make((labels, [(1.0, 1), (2.0, 2)]), (UP, [(1.0, 1)])))
        found = negotiate({"content-type": kind})(body, limit)
        assert len(found.batch) == 1
        assert found.skipped == {"name": 2}
        assert len(found.faults) == 1
        assert len(found.faults[0]) < 300


def test_references_beyond_the_symbols_are_the_series_own_fault() -> None:
    body = request_v2((UP, [(1.0, 1)])) + field(5, field(1, b"\x63\x64") + field(2, b""))
    found = parse(body, 2)
    assert len(found.batch) == 1
    assert found.skipped == {"name": 1}
    odd = parse(field(4, b"") + field(4, b"a") + field(5, field(1, b"\x01") + field(2, b"")), 2)
    assert odd.skipped == {"name": 1}
    with pytest.raises(BodyError, match="first symbol"):
        parse(field(4, b"x"), 2)


def test_a_time_that_no_calendar_shows_costs_its_own_sample_only() -> None:
    for found in both((UP, [(1.0, 2**63 - 1), (2.0, 2000), (3.0, -(2**63))])):
        assert found.batch.times.tolist() == [2.0]
        assert found.batch.values.tolist() == [2.0]
        assert found.skipped == {"malformed": 2}
        assert len(found.faults) == 1


def test_a_label_that_is_there_twice_merges_no_streams() -> None:
    pairs = [(b"__name__", b"a"), (b"x", b"1"), (b"x", b"2")]
    series = b"".join(field(1, field(1, name) + field(2, value)) for name, value in pairs) + field(2, b"")
    assert parse(field(1, series), 1).skipped == {"name": 1}
    symbols = b"".join(field(4, text) for text in (b"", b"__name__", b"a", b"x", b"1", b"2"))
    assert parse(symbols + field(5, field(1, bytes((1, 2, 3, 4, 3, 5))) + field(2, b"")), 2).skipped == {"name": 1}


def test_a_million_labels_of_nothing_are_not_remembered() -> None:
    name = field(1, field(1, b"__name__") + field(2, b"a"))
    found = negotiate({})(snappy(field(1, name + field(1, b"") * 1_000_000 + field(2, b""))), 2**25)
    assert found.skipped == {"name": 1}


def test_a_series_without_samples_has_nothing_to_lose() -> None:
    for found in both(({}, []), (UP, [(1.0, 1000)])):
        assert (len(found.batch), found.skipped, found.faults) == (1, {}, [])


def test_names_that_are_remembered_are_bounded_by_their_size() -> None:
    names = Names(1000)
    for number in range(100):
        assert names.keep((b"%d" % number, b"x" * 50), "name") == "name"
        assert 0 < len(names) < 10
    names.keep((b"x" * 2000,), "name")
    assert names[(b"x" * 2000,)] is None


def test_names_that_nobody_uses_are_forgotten_and_those_in_use_stay() -> None:
    now = [0.0]
    names = Names(clock=lambda: now[0])
    names.keep((b"steady",), "steady")
    for second in range(0, 7200, 10):
        now[0] = float(second)
        names.keep((b"once", b"%d" % second), f"once {second}")
        if second % 300 == 0:  # as rarely as a name may come and still be here
            assert names[(b"steady",)] == "steady"
        assert len(names) <= 2 * KEPT_SECONDS / 10 + 3
    for ago in (0, KEPT_SECONDS):
        assert names[b"once", b"%d" % (second - ago)] == f"once {second - ago:.0f}"
    assert names[b"once", b"%d" % (second - 2 * KEPT_SECONDS - 10)] is None


def test_names_in_use_stay_while_others_come_once() -> None:
    steady = [(b"%06d" % number,) for number in range(200)]
    names = Names(300 * (EACH + PART + 12))
    for turn in range(50):
        for key in steady:
            assert (names[key] is None) == (turn == 0)
            names.keep(key, key[0].decode())
        for number in range(20):
            names.keep((b"%03d%03d" % (turn + 1, number),), "a name")
        assert len(names) <= 600


def test_series_that_are_known_are_read_as_fast_after_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(remote_write, "_heads", Names(clock=lambda: now[0]))
    monkeypatch.setattr(remote_write, "_names", Names(clock=lambda: now[0]))
    slow = list[bytes]()
    inner = remote_write._series_v1
    monkeypatch.setattr(remote_write, "_series_v1", lambda series, found: (slow.append(series), inner(series, found)))
    steady = [({**UP, "instance": str(number)}, [(1.0, 1_714_521_600_000)]) for number in range(20)]
    for turn in range(6):  # each time with a series that comes once, so that generations pass
        once = ({**UP, "instance": f"once {turn}"}, [(1.0, 1_714_521_600_000)])
        assert len(negotiate({})(snappy(request_v1(*steady, once)), 2**25).batch) == 21
        assert len(slow) == 20 + turn + 1
        now[0] += 0.9 * KEPT_SECONDS


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-type": "application/x-protobuf;proto=io.prometheus.write.v3.Request"}, 415),
    ],
)
def test_what_is_not_spoken_is_415(headers: dict[str, str], status: int) -> None:
    with pytest.raises(BodyError) as caught:
        negotiate(headers)
    assert caught.value.status == status


def test_a_bomb_is_refused_unopened() -> None:
    with pytest.raises(BodyError, match="limit is 1048576") as caught:
        unpack(snappy(bytes(2**21)), LIMIT)
    assert caught.value.status == 413
    with pytest.raises(BodyError, match="too short for the unpacked length"):
        unpack(b"\xff\xff\x3f" + bytes(20), LIMIT)
    assert unpack(snappy(b""), LIMIT) == b""
    assert unpack(snappy(bytes(2**20)), LIMIT) == bytes(2**20)


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    for body in (data, snappy(data)):
        for kind in ("application/x-protobuf", V2):
            assert refused(partial(negotiate({"content-type": kind}), body, LIMIT)) in (0, 400, 413)


@given(st.data())
def test_a_damaged_body_is_refused_or_read_but_nothing_else(data: st.DataObject) -> None:
    for version, make in ((1, request_v1), (2, request_v2)):
        body = bytearray(make((UP, [(1.0, 1000), (2.0, 2000)]), ({"__name__": "b"}, [(3.0, 3000)])))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
        end = data.draw(st.integers(0, len(body)))
        for damaged in (body, body[:end]):
            assert refused(partial(parse, bytes(damaged), version)) in (0, 400)


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_body_unpacks_to_is_charged(version: int) -> None:
    """A body of some kilobytes may unpack to thirty times that."""
    body = snappy(request_v1(({"__name__": "up"}, [(1.0, at) for at in range(20_000)])))
    kind = "application/x-protobuf" if version == 1 else V2
    parse = negotiate({"content-type": kind})
    metrics = Metrics()
    memory = RequestMemory(metrics, 10_000_000)
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.to_thread(parse, body, LIMIT)
        finally:
            held.append(memory.bytes)

    scope = {"type": "http", "path": "/api/v1/write"}
    bounded = Bounds(app, metrics, 10, memory)
    unpacked = len(unpack(body, LIMIT))
    readings = -(-20_000 // TOGETHER) * TOGETHER * READING
    with contextlib.suppress(BodyError):  # of the other version's meaning
        asyncio.run(bounded(scope, None, None))  # type: ignore[arg-type]
    assert held.pop() == unpacked + (readings if version == 1 else 0)
    assert memory.bytes == 0
    with memory.account() as other:
        other.charge(memory.most - unpacked + 1)
        with pytest.raises(BodyError, match="max_request_memory") as caught:
            asyncio.run(bounded(scope, None, None))  # type: ignore[arg-type]
        assert caught.value.status == 503
    assert metrics.registry.get_sample_value("streamer_refused_requests_total", {"reason": "bytes"}) == 1


SAMPLES = st.tuples(
    st.sampled_from([0.0, 1.5, -1e300, math.nan, math.inf, STALE]),
    st.sampled_from([0, 1, -1, 2**34, 2**35, 1_630_424_257_500, 2**42 - 1, 2**42, 2**63 - 1]),
)
LABELS = st.sampled_from([UP, {"__name__": "load"}, {"__name__": "x" * 200}, {"__name__": "a", "b": "\x12\x10\t" * 6}])
ENDS = st.sampled_from([b"", field(5, b"metadata"), field(4, b""), field(1, field(1, b"z") + field(2, b"late label"))])


@given(st.lists(st.tuples(LABELS, st.lists(SAMPLES, max_size=2)), max_size=6), ENDS, st.binary(max_size=20))
def test_what_is_read_quickly_is_read_as_with_care(series: list, extra: bytes, value: bytes) -> None:
    name = field(1, field(1, b"__name__") + field(2, b"o" + value.hex().encode()))
    odd = field(1, name + field(2, sample(1.0, 2**40)))
    body = request_v1(*series, extra=extra) + odd
    found = [said(parse(body, 1)) for _ in range(3)]  # from the second time on by names that are known
    remote_write._heads.clear()
    assert found == [said(parse(body, 1))] * 3


def said(found: Parsed) -> tuple:
    batch = found.batch
    return list(batch.names), repr(batch.times.tolist()), repr(batch.values.tolist()), found.skipped, found.faults


def test_a_sample_inside_a_label_is_none() -> None:
    """What stands behind the labels decides, not what the last bytes look like."""
    end = sample(1.0, 2**40)
    labels = {"__name__": "a", "b": "1"}
    known = request_v1((labels, [(1.0, 2**40)]))
    parse(known, 1)
    inside = field(1, field(1, b"__name__") + field(2, b"a")) + field(1, field(1, b"b") + field(2, b"1"))
    longer = inside + field(1, field(2, field(2, end)[:-1]))  # another label, and no sample
    assert parse(known + field(1, longer), 1).batch.values.tolist() == [1.0]


def test_known_series_are_charged_before_more_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are copies of the body's bytes, which nobody counted while they waited to be read together."""
    together, add = list[int](), remote_write._add_known
    monkeypatch.setattr(
        remote_write, "_add_known", lambda names, *rest: (together.append(len(names)), add(names, *rest))[1]
    )
    series = [({"__name__": "up", "job": str(at)}, [(1.0, 1_630_424_257_500)]) for at in range(3 * TOGETHER + 7)]
    for _ in range(2):  # the second time by names that are remembered
        together.clear()
        found = parse(request_v1(*series), 1)
    assert list(found.batch.names) == [f'up{{job="{at}"}}' for at in range(len(series))]
    assert together == [TOGETHER] * 3 + [7]
