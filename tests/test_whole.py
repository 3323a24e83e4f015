"""16000.0 is a whole number, in every frame and body."""

from __future__ import annotations

import json

import pytest

from streamer.serve.generate import GenerateRequest
from streamer.serve.kserve.messages import SequenceFlags, read_parameters
from streamer.serve.stream.protocol import Resume, Rows, Start, WireError, parse_control
from streamer.whole import whole


def test_floats_that_are_whole_become_integers() -> None:
    given = {"a": 16000.0, "b": [1.0, 1.5, True, None, "2.0"], "c": {"d": -3.0, "e": 2.0**60}}
    assert json.dumps(whole(given)) == json.dumps(
        {"a": 16000, "b": [1, 1.5, True, None, "2.0"], "c": {"d": -3, "e": 2.0**60}}
    )


def test_frames() -> None:
    start = parse_control(b'{"type":"start","sample_rate":16000.0,"seq":0.0,"options":{"beam":4.0,"on":0.5}}', 1000)
    assert isinstance(start, Start)
    assert (start.sample_rate, start.seq, start.options) == (16000, 0, {"beam": 4, "on": 0.5})
    resume = parse_control(b'{"type":"resume","stream":"x","seq":7.0}', 1000)
    assert isinstance(resume, Resume)
    assert resume.seq == 7


def test_rows_are_left_as_they_are() -> None:
    rows = parse_control(b'{"type":"rows","values":[[1.0,2.0]]}', 1000)
    assert isinstance(rows, Rows)
    assert json.dumps(rows.values) == "[[1.0, 2.0]]"


@pytest.mark.parametrize("rate", ['"16000"', "16000.5", "1e400", "true", "null1", "-8000.0"])
def test_what_is_no_whole_number_is_refused(rate: str) -> None:
    with pytest.raises(WireError):
        parse_control(b'{"type":"start","sample_rate":%s}' % rate.encode(), 1000)


def test_wishes_and_parameters() -> None:
    assert GenerateRequest.model_validate(whole({"length": 20.0})).length == 20
    found, seconds = read_parameters({"sequence_id": 42.0, "sequence_start": True, "timeout": 1000.0})
    assert (found, seconds) == (SequenceFlags(42, True, False, None), 0.001)
