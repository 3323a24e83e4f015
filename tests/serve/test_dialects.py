"""Whatever a client says is taken, or refused in words: the readers of others' protocols know no third."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamer.refusals import Refused
from streamer.render import dumped
from streamer.serve.openai.session import AudioFormat, RealtimeProblem, SessionSettings, read_event
from streamer.serve.strict_json import strict_json
from streamer.serve.vosk.dialect import VoskConfig, parse_text, wav_header
from streamer.serve.wyoming.events import encode_event, parse_data, parse_header
from streamer.serve.wyoming.utterance import SoundFormat, WyomingWish, checked, mono

TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # halves of surrogate pairs, too
WORDS = st.sampled_from(
    "config eof reset sample_rate words max_alternatives phrase_list model type data data_length payload_length ping"
    " transcribe name language transcript_names rate width channels session audio input format transcription"
    " turn_detection server_vad silence_duration_ms audio/pcm keywords include event_id final text numbers".split()
)
NUMBERS = st.integers(-(10**40), 10**40) | st.floats() | st.sampled_from([0, 1, 2, 8000, 16000, 0.5, -1, 2**31])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | TEXT, inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(WORDS, VALUES, max_size=5) | VALUES
LINES = DOCUMENTS.map(lambda found: json.dumps(found).encode()) | st.binary(max_size=40)


def is_json(data: bytes) -> Any:
    def no_constant(name: str) -> None:
        raise AssertionError(name)

    return json.loads(data, parse_constant=no_constant)


@given(LINES)
def test_vosk(line: bytes) -> None:
    with suppress(Refused):
        found = parse_text(line)
        assert found in ("eof", "reset") or isinstance(found, VoskConfig)
        if isinstance(found, VoskConfig):
            assert found.over(VoskConfig(sample_rate=8000)).sample_rate
            assert set(found.options) <= {"hotwords"}


@given(st.binary(max_size=60).map(lambda rest: b"RIFF\0\0\0\0WAVE" + rest) | st.binary(max_size=30))
def test_headers_of_wav(data: bytes) -> None:
    with suppress(Refused):
        assert wav_header(data) is None or wav_header(data)[0] <= len(data)


@given(LINES, LINES, st.binary(max_size=9))
def test_wyoming(line: bytes, data: bytes, payload: bytes) -> None:
    with suppress(Refused):
        header = parse_header(line, 100)
        assert 0 <= header.payload_length <= 100
        event = parse_data(header, data, payload)
        first, _, rest = encode_event("pong", event.data or None).partition(b"\n")
        assert is_json(first).get("data_length", 0) == len(rest)
        is_json(rest or b"{}")
        assert isinstance(checked(WyomingWish, event).hints, list)
        assert len(mono(payload, checked(SoundFormat, event))) <= len(payload)


@given(LINES, DOCUMENTS)
def test_realtime(line: bytes, given: Any) -> None:
    with suppress(RealtimeProblem):
        event = read_event(line)
        is_json(dumped({"event_id": event.event_id}).encode())
        AudioFormat().decode(event.audio or "")
    settings = SessionSettings()
    for document in (given, {"audio": {"input": given}}, {"audio": {"input": {"format": given}}}):
        if isinstance(document, dict):
            with suppress(RealtimeProblem, ValueError):
                settings = settings.updated(strict_json(json.dumps(document).encode()))
    assert settings.input.format.sample_rate > 0
    assert isinstance(settings.options, dict)
    is_json(dumped(settings.to_dict()).encode())
