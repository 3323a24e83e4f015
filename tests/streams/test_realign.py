"""What was heard again on the time line of the first hearing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from streamer.streams.realign import matches, revise, spoken
from streamer.streams.revision import Heard, HeardWord


def words(text: str, start: float = 0.0, each: float = 0.5) -> tuple[HeardWord, ...]:
    return tuple(
        HeardWord(word, start + i * each, start + i * each + 0.8 * each, 0.9) for i, word in enumerate(text.split())
    )


def first(text: str, start: float, each: float = 0.5) -> list[dict[str, Any]]:
    return [
        {"word": word, "start": start + i * each, "end": start + i * each + 0.3, "confidence": 0.5}
        for i, word in enumerate(text.split())
    ]


def test_words_that_both_heard_have_the_times_of_the_first() -> None:
    second = revise(Heard(words("The cat sat, well.")), first("a cat sad well", 10.1), 10.0, (10.0, 12.0))
    assert second.text == "The cat sat, well."
    assert [(w["word"], w["start"], w["end"]) for w in second.words] == [
        ("the", 10.0, 10.4),
        ("cat", 10.6, 10.9),
        ("sat", 11.0, 11.4),
        ("well", 11.6, 11.9),
    ]


def test_the_same_word_far_away_is_another_one() -> None:
    second = revise(Heard(words("no no no")), first("no", 13.0), 10.0, (10.0, 14.0))
    assert [w["start"] for w in second.words] == [10.0, 10.5, 11.0]


def test_no_word_begins_before_the_last_one_ends() -> None:
    crossed = Heard((HeardWord("one", 0.5, 1.5, 1.0), HeardWord("two", 0.2, 0.9, 1.0), HeardWord("three", 1.9, 3, 1.0)))
    second = revise(crossed, first("one two three", 0.7, 0.1), 0.0, (0.0, 2.5))
    assert all(0 <= a["start"] <= a["end"] <= b["start"] <= b["end"] <= 2.5 for a, b in pairwise(second.words))


def test_a_word_does_not_go_on_into_the_pause_behind_it() -> None:
    second = revise(Heard((HeardWord("over", 1.0, 5.0, 0.9),)), [], 0.0, (0.0, 6.0))
    assert (second.words[0]["start"], second.words[0]["end"]) == (1.0, 2.2)
    assert revise(Heard((HeardWord("over", 1.0, 5.0, 0.9),)), [], 0.0, (0.0, 2.0)).text == "over"


def test_words_of_the_neighbours_are_left_out() -> None:
    second = revise(Heard(words("last word here next")), [], 10.0, (10.45, 11.5))
    assert second.text == "word here"


def test_the_pause_between_two_finals_makes_neither_lose_a_word() -> None:
    span, own = (10.6, 12.0), first("make me coffee", 11.2)
    stretched = Heard((HeardWord("Make", 0.1, 1.5, 0.9), HeardWord("me", 1.5, 1.8, 0.9)))
    assert revise(stretched, own, 10.0, span).text == "Make me"
    before = Heard(
        (HeardWord("please.", 0.1, 1.2, 0.9), HeardWord("Make", 1.2, 1.5, 0.9), HeardWord("me", 1.5, 1.8, 0.9))
    )
    assert revise(before, own, 10.0, span).text == "Make me"


@pytest.mark.parametrize(
    ("heard", "reason"),
    [
        (Heard(), ""),
        (Heard(words("thank you"), silence=0.9, logp=-0.8), ""),
        (Heard(words("thank you"), silence=0.9, logp=-0.2), None),
        (Heard(words("mumble mumble"), logp=-1.2), "unsure"),
        (Heard(words("and then the same again " * 12, each=0.03), logp=-0.1), "unsure"),
        (
            Heard(words("abcdefgh ijklmnop qrstuvw xyzabc defghij klmnopq rstuvwx yz12 345 678 90a bcd", each=0.1)),
            "unsure",
        ),
    ],
)
def test_what_is_not_believed(heard: Heard, reason: str | None) -> None:
    second = revise(heard, first("one", 0.0), 0.0, (0.0, 1.2))
    assert second.reason == (reason or "")
    assert bool(second.words) is (reason is None)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Hello,", "hello"),
        ("don\u2019t", "don't"),
        ("\u201cOh!\u201d", "oh"),
        ("23", "twenty three"),
        ("1999.", "nineteen ninety nine"),
        ("$5", "five dollars"),
        ("3rd", "third"),
        ("well-known", "well known"),
        ("\u2014", ""),
        ("B2B", "b2b"),
        ("3-1-4", "three one four"),
        ("-3", "minus three"),
    ],
)
def test_written_words_as_they_are_said(written: str, said: str) -> None:
    assert " ".join(spoken(written)) == said


def test_numbers_stay_in_digits_for_who_wants_them_so() -> None:
    assert spoken("$5", "written") == ["$5"]
    second = revise(Heard(words("about 23 men")), [], 0.0, (0.0, 2.0))
    assert [(w["word"], w["written"]) for w in second.words] == [
        ("about", "about"),
        ("twenty", "23"),
        ("three", ""),
        ("men", "men"),
    ]
    assert second.words[1]["end"] == second.words[2]["start"]


def test_an_alignment_pairs_equal_words_in_order() -> None:
    assert matches(["a", "b", "c"], ["x", "b", "c", "c"]) in ([(1, 1), (2, 2)], [(1, 1), (2, 3)])
    assert matches([], ["a"]) == []
