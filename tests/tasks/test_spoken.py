"""How written numbers are read, and which parts of a transcript may be one."""

from __future__ import annotations

import pytest

from streamer.streams.numbers import phrases
from streamer.tasks.spoken import SIGNS, WORDS, canonical, known, readings, says

SAID = {
    "twenty three point five": "23.5",
    "zero point oh five": "0.05",
    "two hundred and five": "205",
    "a hundred and five": "105",
    "nine million nine hundred ninety nine thousand nine hundred and ninety nine": "9,999,999",
    "minus forty": "-40",
    "nineteen ninety nine": "1999",
    "nineteen oh five": "1905",
    "eighteen hundred": "1800",
    "two thousand and five": "2005",
    "twenty third": "23rd",
    "one hundred and eleventh": "111th",
    "two million and first": "2,000,001st",
    "seven thirty pm": "7:30 pm",
    "seven oh five am": "7:05 am",
    "twelve pm": "12 pm",
    "half past twelve": "12:30",
    "quarter to one": "12:45",
    "ten past six": "6:10",
    "seven o'clock": "7:00",
    "three dollars and fifty cents": "$3.50",
    "three dollars fifty": "$3.50",
    "twenty euros": "€20",
    "twelve point five percent": "12.5%",
    "oh oh seven": "007",
}


@pytest.mark.parametrize("words", SAID)
def test_what_is_said_is_a_reading_of_what_is_written(words: str) -> None:
    assert says(words.split(), SAID[words])
    assert set(words.split()) <= set(WORDS)
    assert not any(says(words.split(), other) for other in SAID.values() if other != SAID[words])
    for i in range(len(SAID[words])):  # one digit more or less or another is another number
        for sign in ("", "0", "1", "2", "9"):
            changed = SAID[words][:i] + sign + SAID[words][i + 1 :]
            assert changed == SAID[words] or not says(words.split(), changed)


@pytest.mark.parametrize(
    "written",
    ["", "x", "1234567", "12,34", "1,234", "5nd", "11st", "13:00", "7:61", "100th", "-7th", "$1.2.3", "0012.5"],
)
def test_what_is_not_written_as_numbers_are_has_no_cardinal_reading(written: str) -> None:
    named = {"hundred", "thousand", "million", "point", "o'clock", "dollars"}
    assert not any(named & set(reading) for reading in readings(written))


def test_no_words_are_two_numbers() -> None:
    numbers = [*map(str, range(10_000)), *(f"{n:03d}" for n in range(1000)), *(f"{n:,}" for n in range(10_000, 30_000))]
    numbers += [f"{h}:{m:02d}{half}" for h in range(1, 13) for m in range(60) for half in ("", " am", " pm")]
    numbers += [f"{n}.{part}" for n in range(30) for part in ("0", "5", "05", "50", "123")]
    numbers += [f"{n}{end}" for n in range(2000) for end in ("st", "nd", "rd", "th")]
    found: dict[tuple[str, ...], str] = {}
    for written in numbers:
        for reading in readings(written):
            assert found.setdefault(reading, written) == written
            assert canonical(reading) == reading
    assert len(found) > 30_000


def test_synonyms_and_case() -> None:
    assert [known(w) for w in ("TWENTY", "Negative", "dollar", "p.m.", "may", "seconds")] == [
        "twenty", "minus", "dollars", "pm", "", "",
    ]  # fmt: skip
    assert len(set(WORDS)) == len(WORDS)
    assert len(set(SIGNS)) == len(SIGNS)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("on the twenty third of may nineteen ninety nine", ["twenty third", "nineteen ninety nine"]),
        ("one of them and two hundred and five more", ["two hundred and five"]),
        ("ten and twenty", ["ten", "twenty"]),
        ("five to ten people", ["ten"]),
        ("from ten to twenty percent", ["ten", "twenty percent"]),
        ("at quarter to five i am here", ["quarter to five"]),
        ("a quarter of an hour half an hour", []),
        ("at this point five people", []),
        ("wait a second a twenty second delay", []),
        ("the twenty second of june", ["twenty second"]),
        ("a hundred and a few", ["a hundred"]),
        ("twenty minus five", ["twenty"]),
        ("first second third", ["first second third"]),
        ("she said no", []),
        ("", []),
        ("percent and dollars am", []),
        (" ".join(["one"] * 25), []),
    ],
)
def test_phrases(text: str, found: list[str]) -> None:
    words = text.split()
    assert [" ".join(words[begin:end]) for begin, end in phrases(words)] == found
