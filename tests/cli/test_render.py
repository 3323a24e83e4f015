"""Subtitles and JSON lines, from events alone."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streamer.render import CUE_CHARACTERS, CUE_SECONDS, json_line, srt, subtitles, vtt


def _final(*words: tuple[str, float, float]) -> dict[str, Any]:
    listed = [{"word": w, "start": a, "end": b, "confidence": 0.5} for w, a, b in words]
    text = " ".join(w for w, _, _ in words)
    return {"type": "final", "seq": 3, "text": text, "start": words[0][1], "end": words[-1][2], "words": listed}


def test_times_of_srt_and_vtt() -> None:
    event = _final(("one", 3599.9996, 3601.25), ("two", 3601.5, 3602.0))
    assert srt([event]) == "1\n01:00:00,000 --> 01:00:02,000\none two\n\n"
    assert vtt([event]) == "WEBVTT\n\n01:00:00.000 --> 01:00:02.000\none two\n\n"


def test_subtitles_show_what_is_written_and_lines_say_both() -> None:
    event = _final(("well", 0.0, 1.0), ("john", 1.0, 2.0))
    for word, written in zip(event["words"], ("Well,", "John."), strict=True):
        word["written"] = written
    event["text"] = "Well, John."
    assert subtitles([event]) == [(0.0, 2.0, "Well, John.")]
    words = json.loads(json_line(event, "a.wav"))["words"]
    assert [(word["word"], word["written"]) for word in words] == [("well", "Well,"), ("john", "John.")]


def test_vtt_escapes_markup() -> None:
    assert vtt([_final(("a<b", 0.0, 2.0), ("-->", 2.0, 3.0), ("&", 3.0, 4.0))]).splitlines()[3] == "a&lt;b --&gt; &amp;"


def test_partials_and_empty_finals_are_no_cues() -> None:
    empty = {"type": "final", "text": "", "start": 0.0, "end": 0.0, "words": []}
    assert subtitles([_final(("a", 0.0, 2.0)) | {"type": "partial"}, empty]) == []


def test_a_short_cue_is_held_but_never_into_the_next() -> None:
    cues = subtitles([_final(("a", 0.0, 0.2)), _final(("b", 0.5, 0.6)), _final(("c", 9.0, 9.1))])
    assert cues == [(0.0, 0.5, "a"), (0.5, 1.5, "b"), (9.0, 10.0, "c")]


def test_json_line_has_the_promised_keys_and_no_other() -> None:
    line = json_line(_final(("ä", 0.0, 1.0)) | {"stable": 1}, "f.wav")
    assert line == (
        '{"type": "final", "file": "f.wav", "text": "ä", "start": 0.0, "end": 1.0, '
        '"words": [{"word": "ä", "start": 0.0, "end": 1.0, "confidence": 0.5}]}'
    )
    assert json.loads(line)["file"] == "f.wav"


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=12), st.floats(0.05, 2.0)), min_size=1, max_size=80))
def test_long_finals_are_cut_into_readable_cues_that_lose_no_word(words: list[tuple[str, float]]) -> None:
    at, timed = 0.0, []
    for word, length in words:
        timed.append((word, at, at + length))
        at += length
    cues = subtitles([_final(*timed)])
    assert " ".join(text for _, _, text in cues).split() == [word for word, _ in words]
    for start, end, text in cues:
        assert len(text) <= CUE_CHARACTERS
        assert end - start <= CUE_SECONDS + 1e-9
    assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(cues))
    assert len(re.findall("-->", srt([_final(*timed)]))) == len(cues)


HEARD_AGAIN = {
    "type": "final",
    "text": "About 23 men.",
    "start": 0.0,
    "end": 2.0,
    "revised": True,
    "words": [
        {"word": "about", "start": 0.0, "end": 0.5, "confidence": 0.9, "written": "About"},
        {"word": "twenty", "start": 0.5, "end": 1.0, "confidence": 0.9, "written": "23"},
        {"word": "three", "start": 1.0, "end": 1.5, "confidence": 0.9, "written": ""},
        {"word": "men", "start": 1.5, "end": 2.0, "confidence": 0.9, "written": "men."},
    ],
}


def test_a_final_that_was_heard_again_is_shown_as_it_is_written() -> None:
    assert srt([HEARD_AGAIN]) == "1\n00:00:00,000 --> 00:00:02,000\nAbout 23 men.\n\n"
    line = json.loads(json_line(HEARD_AGAIN, "a.wav"))
    assert (line["revised"], [word["written"] for word in line["words"]]) == (True, ["About", "23", "", "men."])
