"""Written sentences in spoken words."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.speech.corpus.spoken import speak, words

CASES = [
    ("The table is at 4:05 a.m. on March 9th.", "The table is at four oh five ^A ^M on March ninth."),
    ("See you at 7 pm. It starts then.", "See you at seven ^P ^M. It starts then."),
    ("Revenue was $2.7 trillion, up 24%.", "Revenue was two point seven trillion dollars, up twenty four percent."),
    ("It costs $29.", "It costs twenty nine dollars."),
    ("Open 24/7 in the 1990s & later", "Open twenty four seven in the nineteen nineties and later"),
    ("Between 10-15 people", "Between ten to fifteen people"),
    ("In 2019 the U.S. had Q3 growth", "In twenty nineteen the ^U ^S had Q three growth"),
    ("Dodgers Vs Giants, etc.", "Dodgers versus Giants, et cetera"),
    ("Dr. Smith's follow-up <inaudible> went “well”…", "Doctor Smith's follow up went well"),
]


@pytest.mark.parametrize(("written", "spoken"), CASES)
def test_what_is_written_is_said(written: str, spoken: str) -> None:
    heard = {speak(written, random.Random(seed)) for seed in range(40)}
    assert spoken in heard
    assert len(heard) <= 8  # other readings of the same, no noise


def test_what_nobody_could_say_is_left_out() -> None:
    for text in ("Press * 1", "¥120 billion", "", "...", "a" * 40, "数字"):
        assert speak(text, random.Random(1)) is None


def test_a_number_has_several_readings() -> None:
    heard = {speak("Flight 4510", random.Random(seed)) for seed in range(40)}
    assert {"Flight forty five ten", "Flight four thousand five hundred and ten"} <= heard


@given(st.text(max_size=80), st.integers(0, 9))
def test_nothing_but_words_and_marks_comes_out(text: str, seed: int) -> None:
    spoken = speak(text, random.Random(seed))
    if spoken is not None:
        assert not set(spoken) - set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz^' ,.?!;:-")
        assert words(spoken)
        assert spoken == speak(text, random.Random(seed))
