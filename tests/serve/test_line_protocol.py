"""Line protocol: what Telegraf and others write, and what nobody should."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.readings import line_protocol
from streamer.serve.readings.line_protocol import parse
from streamer.serve.readings.parsed import BodyError
from tests.serve.senders import refused


def readings(text: str, unit: float = 1e-9) -> list[tuple[str, float, float]]:
    found = parse(text.encode(), unit)
    assert found.faults == []
    return list(zip(found.batch.names, found.batch.times.tolist(), found.batch.values.tolist(), strict=True))


def test_every_number_of_a_line_is_a_reading() -> None:
    fields = "temperature=73.97,humidity=35i,count=7u,on=t,off=FALSE"
    line = f"airSensors,sensor_id=TLM0201,floor=2 {fields} 1630424257000000000"
    series = '{floor="2",sensor_id="TLM0201"}'
    for _ in range(2):  # the second time by names that are remembered
        assert readings(line) == [
            (f"airSensors.temperature{series}", 1630424257.0, 73.97),
            (f"airSensors.humidity{series}", 1630424257.0, 35.0),
            (f"airSensors.count{series}", 1630424257.0, 7.0),
            (f"airSensors.on{series}", 1630424257.0, 1.0),
            (f"airSensors.off{series}", 1630424257.0, 0.0),
        ]
    assert readings("cpu value=1 5", 1.0) == [("cpu", 5.0, 1.0)]
    assert readings("cpu,a=b value=-1.5e3 5000", 1e-3) == [('cpu{a="b"}', 5.0, -1500.0)]


def test_the_order_of_tags_makes_no_other_stream() -> None:
    (one,), (other,) = readings("m,a=1,b=2 v=1 1"), readings("m,b=2,a=1 v=1 1")
    assert one == other


def test_a_line_without_a_time_arrived_now() -> None:
    ((_, time, _),) = readings("cpu value=1")
    assert math.isnan(time)


def test_escapes_and_strings() -> None:
    text = r'my\ cpu,the\ tag=a\,b\=c the\ field=1,text="a, b=2 \" c",after=2 1'
    found = parse(text.encode(), 1.0)
    labels = '{the tag="a,b=c"}'
    assert list(found.batch.names) == [f"my cpu.the field{labels}", f"my cpu.after{labels}"]
    assert (found.skipped, found.faults) == ({"string": 1}, [])
    broken = parse(b'm text="two\nlines",v=1 1\nm v=2 2\n', 1.0)
    assert broken.batch.values.tolist() == [1.0, 2.0]


def test_comments_empty_lines_and_windows() -> None:
    assert readings("# hello\r\n\r\n  \ncpu value=1 1\r\n", 1.0) == [("cpu", 1.0, 1.0)]
    assert len(parse(b"", 1.0).batch) == 0


@pytest.mark.parametrize(
    "line",
    [
        "cpu",
        "cpu value",
        "cpu value=",
        "cpu value=1,",
        "cpu value=abc 1",
        "cpu value=0x10 1",
        "cpu value=nan 1",
        "cpu value=1_0 1",
        "cpu value=1i5 1",
        "cpu, value=1 1",
        "cpu,tag value=1 1",
        "cpu,tag= value=1 1",
        "cpu value=1 1.5",
        "cpu value=1 1 1",
        "cpu value=1 99999999999999999999",
        ",a=b value=1 1",
        'cpu value="open 1',
        "cpu,a=\x1b value=1 1",
    ],
)
def test_a_bad_line_is_told_with_its_number_and_costs_no_other(line: str) -> None:
    found = parse(f"good value=1 1\n{line}\ngood value=2 2\n".encode(), 1.0)
    assert found.batch.values.tolist()[:1] == [1.0]
    if '"' not in line:
        assert found.batch.values.tolist() == [1.0, 2.0]
    assert found.skipped == {"malformed": 1}
    assert found.faults[0].startswith("line 2: ")
    with pytest.raises(BodyError, match="line 1"):
        parse(line.encode(), 1.0)


def test_many_bad_lines_are_counted_and_a_few_told() -> None:
    found = parse(b"good value=1 1\n" + b"bad\n" * 5000, 1.0)
    assert found.skipped == {"malformed": 5000}
    assert len(found.faults) == 10


def test_long_names_and_lines() -> None:
    long = b"m,t=" + b"x" * 10_000_000 + b" v=1 1\n"
    found = parse(b"good value=1 1\n" + long + b"m,t=" + b"y" * 2000 + b" v=1 1\n", 1.0)
    assert found.skipped == {"malformed": 2}
    assert all(len(fault) < 300 for fault in found.faults)


@pytest.mark.parametrize(
    ("stray", "malformed"),
    [
        ('# a pipe of 5"', 0),
        ('cpu,host=a"b value=0 1', 0),
        ('cpu s="C:\\\\" 1', 0),
        ('cpu s="open 1', 1),
        ('cpu s="open,value=1 1\ncpu s="open,value=1 1', 2),
        ("cpu value=1 1\\", 1),
    ],
)
def test_a_stray_quote_takes_no_other_line_with_it(stray: str, malformed: int) -> None:
    found = parse(f'{stray}\ngood value=1 1\ngood text="a \\" b",value=2 2\n'.encode(), 1.0)
    assert [v for n, v in zip(found.batch.names, found.batch.values, strict=True) if n == "good"] == [1.0, 2.0]
    assert found.skipped.get("malformed", 0) == malformed == len(found.faults)


def test_lines_are_counted_through_a_string_of_several() -> None:
    found = parse(b'm text="a\nb\nc",v=1 1\nbad\n', 1.0)
    assert found.batch.values.tolist() == [1.0]
    assert found.faults[0].startswith("line 4: ")


@pytest.mark.long
def test_many_strings_that_never_end_are_each_a_line() -> None:
    """Looking for the end of each in all the rest would not come back from this."""
    for line in (b'm s="', b'm ",s="', b""):
        found = parse(b'good value=1 1\nm s="\n' + (line + b"\n") * 300_000 + b"good value=2 2\n", 1.0)
        assert found.batch.values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("time", ["999999999999", "-99999999999"])
def test_a_time_that_no_calendar_shows_is_told(time: str) -> None:
    found = parse(f"a value=1 1\nb value=1 {time}\n".encode(), 1.0)
    assert (list(found.batch.names), found.skipped) == (["a"], {"malformed": 1})
    assert found.faults[0].startswith("line 2: ")


PIECES = st.sampled_from(["m", ",", "=", " ", '"', "\\", "1", "1.5", "i", "t", "\n", "a", "value=", "é", "\x00", "#"])


@given(st.one_of(st.lists(PIECES, max_size=40).map("".join).map(str.encode), st.binary(max_size=60)))
def test_anything_is_read_or_refused(body: bytes) -> None:
    if refused(lambda: parse(body, 1e-9)) != 400:
        assert all(name.isprintable() for name in parse(body, 1e-9).batch.names)


def test_a_pattern_takes_no_time_to_fail() -> None:
    """Regular expressions that try every way would not come back from this."""
    for piece in (b"\\", b'"', b"a=", b",a", b"\\ ", b" "):
        with pytest.raises(BodyError):
            parse(b"m" + piece * 100_000 + b"\x00=", 1.0)


@given(st.lists(PIECES, max_size=40).map("".join).map(str.encode), st.sampled_from([1.0, 1e-9]))
def test_what_is_read_quickly_is_read_as_with_care(body: bytes, unit: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_protocol, "PLAIN", re.compile(rb"(?!)"))
        careful = said(body, unit)
    for _ in range(2):  # the second time all names are known
        assert said(body, unit) == careful


def said(body: bytes, unit: float) -> object:
    try:
        found = parse(body, unit)
    except BodyError as error:
        return str(error)
    batch = found.batch
    return list(batch.names), repr(batch.times.tolist()), repr(batch.values.tolist()), found.skipped, found.faults
