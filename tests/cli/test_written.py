"""`--text written`: finals with punctuation and capitals where people read them, plain words in pipes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from streamer.engine.catalogue import find_models
from tests.cli.command import ROOT, finals, one_line, streamer
from tests.cli.serving import serving
from tests.cli.test_terminal import _on_a_terminal, _screen

DIGITS = ROOT / "samples" / "digits.flac"

digits = pytest.mark.skipif("digits" not in [p.stem for p in find_models()], reason="models/pretrained/digits.onnx")


def plain(text: str) -> str:
    return re.sub(r"[,.?]", "", text).lower()


def lines(done: bytes) -> list[str]:
    return done.decode().splitlines()


@pytest.mark.long
def test_a_pipe_gets_plain_words_unless_it_asks(toy: Path, recording: Path) -> None:
    spoken = lines(streamer("transcribe", "--model", toy, recording).stdout)
    assert spoken == ["AB", "BBA"]
    written = lines(streamer("transcribe", "--text", "written", "--model", toy, recording).stdout)
    assert written != spoken
    assert [plain(line) for line in written] == [line.lower() for line in spoken]
    assert written[0].startswith("A")


@pytest.mark.long
def test_subtitles_are_written_unless_told_otherwise(toy: Path, recording: Path) -> None:
    found = streamer("transcribe", "--srt", "--model", toy, recording).stdout.decode()
    spoken = streamer("transcribe", "--srt", "--text", "spoken", "--model", toy, recording).stdout.decode()
    assert found.lower().replace(".", "").replace("?", "") == spoken.lower().replace(".", "").replace("?", "")
    assert "AB" in spoken
    assert found != spoken
    times = re.compile(r"[\d:,]+ --> [\d:,]+")
    assert times.findall(found) == times.findall(spoken)


@pytest.mark.long
def test_a_terminal_shows_plain_partials_and_written_finals(toy: Path, recording: Path) -> None:
    seen, code = _on_a_terminal("transcribe", "--model", toy, recording)
    assert code == 0
    assert [plain(line) for line in _screen(seen)] == ["ab", "bba"]
    assert _screen(seen) != ["AB", "BBA"]
    seen, code = _on_a_terminal("transcribe", "--text", "spoken", "--model", toy, recording)
    assert _screen(seen) == ["AB", "BBA"]


def test_json_has_both_forms_of_every_word(toy: Path, recording: Path) -> None:
    done = streamer("transcribe", "--json", "--text", "written", "--model", toy, recording)
    found = [json.loads(line) for line in lines(done.stdout)]
    for event in found:
        if event["type"] == "final":
            assert event["text"] == " ".join(word["written"] for word in event["words"])
            assert plain(event["text"]) == " ".join(word["word"].lower() for word in event["words"])
        else:
            assert all("written" not in word for word in event["words"])
    assert [plain(text) for text in finals(found)] == ["ab", "bba"]


def test_a_wrong_word_is_refused(toy: Path, recording: Path) -> None:
    done = streamer("transcribe", "--text", "shouted", "--model", toy, recording)
    assert "--text" in one_line(done.stderr)
    assert done.returncode == 2


@pytest.mark.long
@digits
def test_a_recording_of_digits_with_marks_and_figures(tmp_path: Path) -> None:
    """From end to end with shipped models: the words are those without it, in their times."""
    own = [json.loads(line) for line in lines(streamer("transcribe", "--json", "--model", "digits", DIGITS).stdout)]
    done = streamer("transcribe", "--json", "--text", "written", "--model", "digits", DIGITS)
    found = [json.loads(line) for line in lines(done.stdout)]
    assert [plain(text) for text in finals(found)] == finals(own)
    for event, before in zip(found, own, strict=True):
        times = [[(w["word"], w["start"], w["end"]) for w in one["words"]] for one in (event, before)]
        assert times[0] == times[1]
    assert all(text[0].isupper() for text in finals(found)[:1])
    both = streamer("transcribe", "--vtt", "--numbers", "written", "--model", "digits", DIGITS).stdout.decode()
    cues = [line for line in both.splitlines() if line and "-->" not in line][1:]
    assert any(re.search(r"\d", cue) for cue in cues)


@pytest.mark.long
def test_a_daemon_does_the_same(toy: Path, recording: Path, tmp_path: Path) -> None:
    here = streamer("transcribe", "--json", "--text", "written", "--model", toy, recording).stdout
    with serving(tmp_path, toy) as url:
        there = streamer("transcribe", "--json", "--text", "written", "--url", url, recording).stdout
        subtitles = streamer("transcribe", "--srt", "--url", url, recording).stdout
        pipe = streamer("transcribe", "--url", url, recording).stdout
    assert finals([json.loads(line) for line in lines(there)]) == finals([json.loads(line) for line in lines(here)])
    assert subtitles == streamer("transcribe", "--srt", "--model", toy, recording).stdout
    assert lines(pipe) == ["AB", "BBA"]
