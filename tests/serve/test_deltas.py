"""What is told once is never taken back, and nothing of a final is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.serve.deltas import Deltas, finals_are_plain, written_words
from streamer.settings import Settings
from tests.daemon.in_process import run_in_process
from tests.toys import samples, toy_model


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_deltas_are_the_finals(tmp_path: Path, early: bool, seed: int) -> None:
    worded = toy_model(tmp_path, options={"units": "words"})
    events = run_in_process(worded, samples(seed, 80_000).tobytes(), 8000)
    deltas = Deltas(early)
    found = [deltas.of(event) for event in events if event["type"] in ("partial", "final")]
    assert "".join(found) == " ".join(e["text"] for e in events if e["type"] == "final" and e["text"])
    finals = sum(event["type"] == "final" for event in events)
    assert (sum(map(bool, found)) > finals) == early


def partial(*words: str, stable: int) -> dict[str, object]:
    return {"type": "partial", "text": " ".join(words), "words": [{"word": word} for word in words], "stable": stable}


def final(text: str) -> dict[str, object]:
    return {"type": "final", "text": text, "words": []}


def test_a_final_that_is_another_one_takes_nothing_back() -> None:
    deltas = Deltas(True)
    assert deltas.of(partial("a", "b", stable=1)) == "a"
    assert deltas.of(final("A b")) == ""
    assert deltas.of(partial("c", stable=1)) == " c"
    assert deltas.of(final("c d")) == " d"


def test_empty_finals_add_nothing() -> None:
    deltas = Deltas(True)
    assert [deltas.of(final(text)) for text in ("", "a", "", "b")] == ["", "a", "", " b"]


@pytest.mark.parametrize(
    ("options", "settings", "plain"),
    [
        ({}, {}, True),
        ({"text": "written"}, {}, False),
        ({}, {"numbers": "written"}, False),
        ({"numbers": "spoken"}, {"numbers": "written"}, True),
        ({}, {"revise": "base"}, False),
        ({"revise": False}, {"revise": "base"}, True),
    ],
)
def test_where_finals_are_what_partials_said(options: dict[str, object], settings: dict[str, str], plain: bool) -> None:
    assert finals_are_plain(Settings.model_validate(settings), options) == plain


def test_words_that_are_written_as_one() -> None:
    word = {"start": 0.0, "end": 1.0, "confidence": 1.0}
    said = [{"words": [word | {"word": "twenty", "written": "21"}, word | {"word": "one", "written": "", "end": 2.0}]}]
    assert written_words(said) == [word | {"word": "21", "written": "21", "end": 2.0}]
    assert said[0]["words"][0]["end"] == 1.0
