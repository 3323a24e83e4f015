"""The codec alone: no sockets, no registry."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.stream.protocol import (
    CLOSE_CODES,
    Dialogue,
    End,
    Marker,
    Resume,
    Start,
    WireError,
    encode,
    parse_control,
)

START = b'{"type":"start","model":"toy","sample_rate":8000}'


def code(dialogue: Dialogue, data: bytes, text: bool = True) -> str:
    with pytest.raises(WireError) as caught:
        dialogue.control(data) if text else dialogue.rows()
    assert caught.value.code in CLOSE_CODES
    assert 4000 <= caught.value.close_code < 5000 or 1000 <= caught.value.close_code < 1016
    return caught.value.code


def test_the_usual_order() -> None:
    dialogue = Dialogue(4096)
    assert dialogue.control(START) == Start(type="start", model="toy", sample_rate=8000)
    dialogue.rows()
    assert dialogue.control(b'{"type":"marker","id":"m"}') == Marker(type="marker", id="m")
    assert dialogue.control(b'{"type":"end"}') == End(type="end")
    assert dialogue.control(b'{"type":"end"}') == End(type="end")
    assert code(dialogue, b"\0\0", text=False) == "bad_order"
    assert code(dialogue, b'{"type":"marker","id":"m"}') == "bad_order"


def test_resume_opens_too() -> None:
    dialogue = Dialogue(4096)
    assert dialogue.control(b'{"type":"resume","stream":"abc","seq":7}') == Resume(type="resume", stream="abc", seq=7)
    assert code(dialogue, START) == "bad_order"


@pytest.mark.parametrize("first", [b'{"type":"end"}', b'{"type":"marker","id":"m"}'])
def test_control_before_start(first: bytes) -> None:
    assert code(Dialogue(4096), first) == "bad_order"


def test_audio_before_start() -> None:
    assert code(Dialogue(4096), b"\0\0", text=False) == "bad_order"


def test_a_refusal_names_what_may_be_written() -> None:
    def said(data: bytes) -> str:
        with pytest.raises(WireError) as refused:
            Dialogue(1000).control(data)
        return refused.value.message.removeprefix("the control frame can't be used: ")

    assert said(b"[1,2]").startswith("a JSON object is expected, not a list: one of ")
    assert said(b'"start"').startswith('a JSON object is expected, not "start": one of ')
    assert said(b"{}").startswith('it has no "type": one of ')
    assert said(b'{"type":"marker"}') == "id: it is missing"
    assert said(b'{"type":"marker","id":7}') == "id: a text is expected, not 7"
    assert said(b'{"type":"marker","id":"m","at":1}') == "at: there is no such field: there are type, id"
    assert said(b'{"type":"start","options":[]}') == "options: a JSON object is expected, not a list"
    assert said(b'{"type":"rows"}') == "frame: give either values or inputs"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "audio_as_text"),
        (b"hello", "audio_as_text"),
        (b"\xff\xfe\x00\x80", "audio_as_text"),
        (b'{"type":"start","sample_rate":', "bad_json"),
        (b"[" * 4000, "bad_json"),
        (b'{"type":"start","sample_rate":NaN}', "bad_json"),
        (b'{"type":"start","sample_rate":Infinity}', "bad_json"),
        (b'{"type":"start","sample_rate":"8000"}', "bad_frame"),
        (b'{"type":"start","sample_rate":0}', "bad_frame"),
        (b'{"type":"start","sample_rate":1e9}', "bad_frame"),
        (b'{"type":"start","sample_rate":8000,"colour":1}', "bad_frame"),
        (b'{"type":"start","sample_rate":8000,"overflow":"explode"}', "bad_frame"),
        (b'{"type":"resume"}', "bad_frame"),
        (b'{"type":"resume","stream":"a","seq":-1}', "bad_frame"),
        (b'{"type":"dance"}', "bad_frame"),
        (b"{}", "bad_frame"),
        (b"[]", "bad_frame"),
        (b"null", "bad_frame"),
        (b'{"type":"start"' + b" " * 5000 + b"}", "too_long"),
    ],
)
def test_bad_control_frames(data: bytes, expected: str) -> None:
    assert code(Dialogue(4096), data) == expected


def refusal(data: bytes) -> dict[str, Any] | None:
    """What a client is told; ``None``: it is a frame."""
    try:
        parse_control(data, 4096)
    except WireError as error:
        return error.to_dict()
    return None


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_frame_or_a_wire_error(data: bytes) -> None:
    """Hypothesis also tries the constants of this code: some of them are frames."""
    said = refusal(data)
    assert said is None or json.loads(encode(said))["type"] == "error"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "seq", "id"]) | st.text(), inner)
        ),
        max_leaves=8,
    )
)
def test_any_json_is_a_frame_or_a_wire_error(document: object) -> None:
    """Hypothesis also tries the constants of this code: a few of its documents are frames."""
    said = refusal(json.dumps(document).encode())
    assert said is None or json.loads(encode(said))["type"] == "error"


def test_nan_never_leaves() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"type": "final", "start": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        encode({"type": "outputs", "outputs": {"y": [[1.0, -float("inf")]]}})


@pytest.mark.parametrize("text", ["NaN", "to Infinity and beyond", "ä 日本 🎉", 'a "quoted"\n\x00 \u2028', ""])
def test_events_read_back_as_they_were_whatever_the_words(text: str) -> None:
    words = [{"word": text, "start": 0.1, "end": 1e-7, "confidence": 1e22}]
    event = {"type": "final", "seq": 2**53, "text": text, "words": words, "more": None, "yes": True, "pair": (1, -0.0)}
    said = encode(event)
    assert json.loads(said) == {**event, "pair": [1, -0.0]}
