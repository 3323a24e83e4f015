"""Parts of words, bytes and characters, to words with times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.tasks.transcribe import pieces
from streamer.tasks.transcribe.search import Unit
from streamer.tasks.transcribe.transcript import Transcript

READ = Transcript(boundary=None, joined=False, step_seconds=0.04, delay=8, pieces=True)


def units(*texts: str) -> list[Unit]:
    return [Unit(text, 10 * n, 10 * n + 1, -0.1) for n, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("texts", "words", "text"),
    [
        (["▁THE", "▁CA", "T", "S"], ["THE", "CATS"], "THE CATS"),
        (["▁", "A", "▁", "B", "C"], ["A", "BC"], "A BC"),
        (["你", "好", "▁OPEN", "AI", "世"], ["你", "好", "OPENAI", "世"], "你好OPENAI世"),
        (["▁na", "<0xC3>", "<0xAF>", "ve"], ["naïve"], "naïve"),
        (["▁<0xE4><0xBD>", "<0xA0>", "▁<0xE5><0xA5><0xBD>", "▁OK"], ["你", "好", "OK"], "你好OK"),
        (["▁A", "<0xC3>", "▁B"], ["A\ufffd", "B"], "A\ufffd B"),
        (["<unk>", "▁A", "<unk>"], ["A"], "A"),
        (["LE", "▁NEED"], ["LE", "NEED"], "LE NEED"),
        ([], [], ""),
    ],
)
def test_pieces_become_words(texts: list[str], words: list[str], text: str) -> None:
    event = READ.event("final", units(*texts), len(texts), 0, True)
    assert [word.word for word in event.words] == words
    assert event.text == text


def test_a_word_has_the_times_of_its_pieces() -> None:
    event = READ.event("final", units("▁A", "▁B", "C"), 3, 0, True)
    assert [(word.start, word.end) for word in event.words] == [(0.0, 0.0), (0.08, 0.56)]


@pytest.mark.parametrize(
    ("texts", "whole"), [(["▁A"], 0), (["▁A", "B"], 0), (["▁A", "▁B"], 1), (["你"], 1), (["你", "<0xE4>"], 1)]
)
def test_words_that_will_not_change(texts: list[str], whole: int) -> None:
    assert READ.words(units(*texts), len(texts), {})[1] == whole


@given(st.lists(st.sampled_from(["▁A", "B", "▁", "你", "<0xE4>", "<0xBD>", "<0xA0>", "<unk>", "é", "。"]), max_size=12))
def test_what_is_whole_stays(texts: list[str]) -> None:
    found, whole = READ.words(units(*texts[:-1]), max(0, len(texts) - 1), {})
    more, _ = READ.words(units(*texts), len(texts), {})
    assert [word.word for word in more[:whole]] == [word.word for word in found[:whole]]


@given(st.text(max_size=20))
def test_any_text_survives_as_bytes(text: str) -> None:
    spelt = pieces.spelt([f"<0x{byte:02X}>" for byte in text.encode()])
    assert spelt == text.strip()
