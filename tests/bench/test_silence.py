"""The silence law: no recogniser that ships writes a word where nobody speaks, or reads speech otherwise behind it."""

from __future__ import annotations

import pytest

from bench import silence
from streamer.engine.catalogue import find_models, resolve
from streamer.engine.model import Model

RECOGNISERS = [p.stem for p in find_models() if Model.load(p).manifest.task == "transcribe"]
#: Words of the sample that may be read otherwise behind nothing, and behind other sound. `english` is unsure of a third
#: of what it hears; behind half a minute of dither one of 28 words is another.
BEHIND_NOTHING = {"digits": 0, "english": 1}
OTHERWISE = {"digits": 1, "english": 4}
LONG = (pytest.mark.long, pytest.mark.timeout(1500))
#: `english` is a hundred times the work of `digits`.
NAMES = [pytest.param(name, marks=[pytest.mark.long] if name == "english" else []) for name in RECOGNISERS]


def test_there_are_recognisers() -> None:
    assert {"english", "digits"} <= set(RECOGNISERS)


@pytest.mark.parametrize("seconds", [8, pytest.param(60, marks=LONG)], ids=["short", "a minute"])
@pytest.mark.parametrize("name", NAMES)
def test_no_word_and_no_partial_where_nobody_speaks(name: str, seconds: float) -> None:
    heard = silence.invented(Model.load(resolve(name)), seconds)
    assert {h.sound for h in heard} == set(silence.SOUNDS)
    assert [(h.sound, h.words, h.partials) for h in heard if h.words or h.partials] == []


@pytest.mark.parametrize(
    "seconds", [30, pytest.param(900, marks=(*LONG, pytest.mark.soak))], ids=["short", "a quarter of an hour"]
)
@pytest.mark.parametrize("name", NAMES)
def test_speech_is_read_as_if_nothing_had_been_before_it(name: str, seconds: float) -> None:
    """Behind zeros or dither nearly to the word; behind a step of the level, with an offset, or behind half a sentence
    and a click some words may differ: it is other sound, or another sentence before it."""
    found = silence.after(Model.load(resolve(name)), name, seconds)
    assert all(one.words > 15 for one in found)
    still = [one for one in found if any(sound in one.before for sound in silence.STILL)]
    assert len(still) == len(silence.STILL)
    assert [(one.before, one.wrong) for one in still if one.wrong > BEHIND_NOTHING[name]] == []
    assert [(one.before, one.wrong) for one in found if one.wrong > OTHERWISE[name]] == []
