"""Texts that are read aloud: cut to what fits, drawn by a generator alone, made where books hold none."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from models.speech.corpus.spoken import speak, words
from models.speech.corpus.texts import MADE, SOURCES, CorpusTexts, Make, draw_digits, fits, piece
from models.speech.data import DIGITS

NAMES = ["Abe", "Miriam", "Zhang"]


@pytest.fixture
def library(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for source in SOURCES:
        if source.file:
            path = tmp_path / source.file
            text = "\n".join(f"{source.name.capitalize()} number {i} went to Miriam, by 4:15 pm." for i in range(30))
            path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.upper().encode())
    return tmp_path


def test_every_source_is_drawn_and_fits(library: Path) -> None:
    texts, rng = CorpusTexts(library), random.Random(1)
    drawn = [texts.draw(rng) for _ in range(300)]
    assert {text.source.name for text in drawn} == {source.name for source in SOURCES}
    assert all(len(words(text.spoken)) and not any(c.isdigit() for c in text.spoken) for text in drawn)
    assert all(fits(text.spoken) for text in drawn if text.source.file)
    assert texts.names == ["Miriam"]


def test_the_same_generator_draws_the_same(library: Path) -> None:
    first, second = ([CorpusTexts(library).draw(random.Random(7)) for _ in range(20)] for _ in range(2))
    assert first == second


def test_a_long_text_is_cut_between_marks() -> None:
    text = "First we say one thing that is long enough, " * 8 + "and end."
    cuts = {piece(text, random.Random(seed)) for seed in range(20)}
    assert all(cut is not None and fits(cut) and cut[0].isupper() for cut in cuts)
    endless = "word " * 60
    assert all(fits(piece(endless, random.Random(seed)) or "") for seed in range(20))
    assert piece("Alone", random.Random(1)) is None


@pytest.mark.parametrize("make", [make for make, _ in MADE])
def test_made_texts_are_spoken_words_already(make: Make) -> None:
    for seed in range(60):
        text = make(random.Random(seed), NAMES)
        again = speak(text.replace("^", ""), random.Random(0))
        assert again is not None
        assert words(again) == words(text)
        assert "{" not in text


def test_digit_strings_have_digits_alone() -> None:
    rng = random.Random(1)
    drawn = [words(draw_digits(rng).spoken) for _ in range(300)]
    assert {word for said in drawn for word in said} == set(DIGITS)
    assert {len(said) for said in drawn} == set(range(1, 10))
