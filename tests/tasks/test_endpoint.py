"""The three silence rules, and what an utterance boundary must not do to the words around it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.tasks.world import finals, play, rows, task, texts

DIGITS = ["<blank>", "ZERO", "ONE", "TWO"]
#: Ten steps of 30 ms: 0.3 s after words, 0.6 s without, 3 s at most.
SHORT = {"silence": 0.6, "trailing": 0.3, "length": 3.0}


def words(kind: str) -> Any:
    return task({"tokens": DIGITS, "units": "words", "decoder": {"kind": kind}, "endpoint": SHORT})


def every_cut(length: int) -> list[int]:
    return list(range(1, length))


@pytest.mark.parametrize("kind", ["greedy", "beam"])
class TestRules:
    def test_trailing_silence_ends_an_utterance_at_its_step(self, kind: str) -> None:
        path = [1, 0, 2] + [0] * 9
        assert texts(play(words(kind), rows([*path, 3], 4))) == ["ZERO ONE TWO"]
        events = play(words(kind), rows([*path, 0, 3], 4))
        assert texts(events) == ["ZERO ONE", "TWO"]
        assert finals(events)[1]["start"] == pytest.approx(13 * 0.03)

    def test_a_first_word_equal_to_the_last_is_not_swallowed(self, kind: str) -> None:
        assert texts(play(words(kind), rows([1] + [0] * 10 + [1], 4))) == ["ZERO", "ZERO"]
        assert texts(play(words(kind), rows([1] + [0] * 10 + [1], 4), cuts=every_cut(12))) == ["ZERO", "ZERO"]

    def test_silence_alone_gives_nothing(self, kind: str) -> None:
        assert play(words(kind), rows([0] * 200, 4, peak=0.999)) == []

    def test_silence_after_an_endpoint_gives_no_second_one(self, kind: str) -> None:
        assert texts(play(words(kind), rows([1] + [0] * 100 + [2], 4))) == ["ZERO", "ONE"]

    def test_a_long_utterance_is_cut_and_no_word_is_lost_or_doubled(self, kind: str) -> None:
        path = [1, 0, 2, 0, 3, 0] * 50
        events = play(words(kind), rows(path, 4))
        assert len(finals(events)) == 3  # 300 steps are three times the longest utterance
        assert " ".join(texts(events)).split() == ["ZERO", "ONE", "TWO"] * 50

    def test_a_word_that_lasts_over_the_cut_is_given_once(self, kind: str) -> None:
        path = [2, 0] + [1] * 120 + [0]
        sure = rows(path, 4, peak=0.99999)  # else a blank in between, at one of 120 places, is likelier than none
        assert " ".join(texts(play(words(kind), sure))) == "ONE ZERO"

    def test_endpoints_do_not_depend_on_chunks(self, kind: str) -> None:
        logp = rows(([1, 0, 2] + [0] * 11) * 4 + [3, 3, 0] * 60 + [0] * 50, 4)
        whole = finals(play(words(kind), logp))
        assert whole == finals(play(words(kind), logp, cuts=every_cut(len(logp))))
        assert whole == finals(play(words(kind), logp, cuts=every_cut(len(logp))[::7], sleep=True))

    def test_a_stream_can_override_them(self, kind: str) -> None:
        logp = rows([1] + [0] * 15 + [2], 4)
        assert texts(play(words(kind), logp, {"endpoint": {"trailing": None}})) == ["ZERO ONE"]
        assert texts(play(words(kind), logp, {"endpoint": {"trailing": 0.06}})) == ["ZERO", "ONE"]


def test_a_cut_holds_an_unfinished_word_back() -> None:
    letters = task({"tokens": ["<blank>", " ", "a", "b"], "units": "characters", "endpoint": SHORT})
    path = [2, 0] * 48 + [1] + [3, 0] * 10  # the word of b's has begun when the 100 steps are over
    assert texts(play(letters, rows(path, 4))) == ["a" * 48, "b" * 10]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"endpoint": 1.5}, "endpoint: a JSON object of silence, trailing, length is expected, not 1.5"),
        ({"endpoint": {"pause": 1.0}}, "endpoint.pause: there is no such field: there are silence, trailing, length"),
        ({"endpoint": {"silence": "1"}}, 'endpoint.silence: "1" is text, and a number is expected'),
        ({"endpoint": {"silence": 0.0}}, "endpoint.silence: it should be greater than 0"),
        ({"endpoints": {}}, "endpoints: there is no such field: there are decoder, endpoint, partials, words,"),
        ({"decoder": 7}, "decoder: a JSON object of kind, beam, "),
        ({"decoder": "best"}, "decoder.kind: it should be 'greedy' or 'beam'"),
    ],
)
def test_options_that_do_not_fit_are_told_what_would(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        words("greedy").open(options)
