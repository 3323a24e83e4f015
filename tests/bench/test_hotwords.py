"""What the bench of hotwords counts."""

from __future__ import annotations

import pytest

from bench.hotwords import compare, recall
from models.speech.data import Utterance

SAID = [
    Utterance(f"{i}", "s", text, [])
    for i, text in enumerate(["CALL KUBERNETES NOW", "THE CAT SAT", "ZELENSKY AND KUBERNETES"])
]


def test_a_term_counts_where_it_was_said_and_is_invented_elsewhere() -> None:
    heard = ["call kubernetes now", "the kubernetes sat", "and kubernetes zelensky"]
    assert recall(SAID, heard, {"kubernetes", "zelensky"}) == (3, 2, 2)


def test_harm_is_measured_where_no_term_is_said() -> None:
    plain = {"known": ["call q now", "the cat sat", "x and y"], "lacking": ["", "", ""]}
    hot = {"known": ["call kubernetes now", "the kubernetes sat", "zelensky and y"], "lacking": ["", "", "zelensky"]}
    found = compare(SAID, ["kubernetes", "zelensky"], {"plain": plain, "hotwords": hot})
    assert (found["terms"], found["said"]) == (2, 3)
    assert found["known, plain"] == {"recall": 0.0, "invented": 0}
    assert found["known, hotwords"] == {"recall": pytest.approx(2 / 3), "invented": 1}
    assert found["lacking, hotwords"] == {"recall": pytest.approx(1 / 3), "invented": 0}
    assert found["error elsewhere, plain"] == 0
    assert found["error elsewhere, hotwords"] == pytest.approx(1 / 3)
    assert found["error, plain"] == pytest.approx(3 / 9)
