"""One check for every name that a client gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.names import NAME_CHARACTERS, NameRefusedError, check_name


@pytest.mark.parametrize("text", ["a", "pump 7", "größe/λ.δ", "x" * 200, 'up{job="node"}'])
def test_a_name_comes_back_as_it_is(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "\ud800", "a\nb", "a\0", "\x1b[31m", "\u2028", "x" * 201, "x" * 900_000])
def test_what_is_not_a_name_is_refused_in_a_short_sentence(text: str) -> None:
    with pytest.raises(NameRefusedError, match="1 to 200 printable characters") as refused:
        check_name(text)
    assert len(str(refused.value).encode()) < 400


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_taken_can_be_stored_and_shown(text: str) -> None:
    refused = ""
    name = "?"
    try:
        name = check_name(text)
    except NameRefusedError as error:
        refused = str(error)
    assert refused.encode().decode() == refused
    assert 1 <= len(name) <= NAME_CHARACTERS
    assert name.encode().decode() == name
    assert not any(ord(character) < 32 or ord(character) == 127 for character in name)


def test_a_name_of_labels_may_be_longer() -> None:
    assert check_name("x" * 1000, 1000)
